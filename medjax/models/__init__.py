"""Flax encoders with their tokenizers, read from and written to Hugging Face checkpoints."""

from medjax.models.adapters import Adapter
from medjax.models.config import EncoderConfig
from medjax.models.config_json import read_config
from medjax.models.encoder import make_encoder
from medjax.models.families import BertConfig, DebertaV2Config, ModernBertConfig
from medjax.models.heads import TextClassifier, TokenClassifier
from medjax.models.huggingface import read_labels, read_params, write_checkpoint
from medjax.models.proof import prove_folder
from medjax.models.resolve import resolve_model
from medjax.models.tasks import TEXT_CLASSIFICATION, TOKEN_CLASSIFICATION, Task
from medjax.models.tokenizer import Tokenizer, load_tokenizer

__all__ = [
    "TEXT_CLASSIFICATION",
    "TOKEN_CLASSIFICATION",
    "Adapter",
    "BertConfig",
    "DebertaV2Config",
    "EncoderConfig",
    "ModernBertConfig",
    "Task",
    "TextClassifier",
    "TokenClassifier",
    "Tokenizer",
    "load_tokenizer",
    "make_encoder",
    "prove_folder",
    "read_config",
    "read_labels",
    "read_params",
    "resolve_model",
    "write_checkpoint",
]
