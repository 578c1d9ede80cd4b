"""A tiny random tagger in a Hugging Face folder, with a tokenizer for the synthetic corpus."""

from pathlib import Path

import jax
import jax.numpy as jnp
import pytest
from word_pieces import write_tokenizer

from medjax.models import BertConfig, TokenClassifier, write_checkpoint
from medjax.text.readers import read_documents
from medjax.text.tagging import tag_names

CORPUS = Path(__file__).parents[2] / "examples" / "data" / "synthetic_clinical"
LABELS = ("Problem", "Test", "Treatment")


@pytest.fixture(scope="session")
def corpus():
    """Sixty sentences of the synthetic corpus."""
    return read_documents(CORPUS / "train.tsv")[:60]


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory, corpus):
    """The folder of a random BERT tagger with hidden size 32, for up to 64 tokens."""
    folder = tmp_path_factory.mktemp("tiny-bert")
    config = BertConfig(
        model_type="bert",
        vocab_size=write_tokenizer(folder, [document.text for document in corpus]),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=64,
    )
    tags = tag_names(LABELS, "iob2")
    tokens = jnp.ones((1, 3), jnp.int32)
    model = TokenClassifier(config, len(tags))
    variables = model.init(jax.random.key(0), tokens, tokens, deterministic=True)
    write_checkpoint(folder, config, variables["params"], labels=tags)
    return folder
