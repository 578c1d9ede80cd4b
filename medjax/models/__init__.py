"""Flax encoders with their tokenizers, read from and written to Hugging Face checkpoints."""

from medjax.models.config import EncoderConfig as EncoderConfig
from medjax.models.config_json import read_config as read_config
from medjax.models.encoder import Encoder as Encoder
from medjax.models.heads import TokenClassifier as TokenClassifier
from medjax.models.huggingface import read_labels as read_labels
from medjax.models.huggingface import read_params as read_params
from medjax.models.huggingface import write_checkpoint as write_checkpoint
from medjax.models.proof import prove_folder as prove_folder
from medjax.models.resolve import resolve_model as resolve_model
from medjax.models.tokenizer import Tokenizer as Tokenizer
from medjax.models.tokenizer import load_tokenizer as load_tokenizer
