"""Flax encoders that read and write Hugging Face checkpoints, and their tokenizers."""

from .config import EncoderConfig as EncoderConfig
from .config_json import read_config as read_config
from .config_json import read_labels as read_labels
from .encoder import Encoder as Encoder
from .heads import TokenClassifier as TokenClassifier
from .huggingface import read_params as read_params
from .huggingface import write_checkpoint as write_checkpoint
from .resolve import resolve_model as resolve_model
from .tokenizer import Tokenizer as Tokenizer
from .tokenizer import load_tokenizer as load_tokenizer
