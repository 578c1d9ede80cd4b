"""BERT, RoBERTa, CamemBERT, XLM-RoBERTa, DistilBERT and ELECTRA."""

from medjax.models.families.bert.config import BertConfig
from medjax.models.families.bert.names import BERT_FAMILIES

__all__ = ["BERT_FAMILIES", "BertConfig"]
