"""Tiny components with random weights, saved in folders as trained ones are."""

import functools

import jax
import numpy as np
from word_pieces import write_tokenizer

from medjax.components import RelationClassification, TextClassification, TokenClassification
from medjax.models import BertConfig, TokenClassifier, write_checkpoint

WORDS = "no fever chest pain aspirin relieved her headache since the stent drug sign cough and"
KINDS = [("Drug", "Sign")]
SCALE = 0.5


def write_encoder(folder, words=(WORDS, "@ * # ^ . , x"), **fields):
    """Write a random encoder for up to 64 tokens, with a tokenizer made of the words."""
    folder.mkdir()
    size = write_tokenizer(folder, words)
    sizes = {
        "model_type": "bert",
        "vocab_size": size,
        "hidden_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 16,
        "max_position_embeddings": 64,
    }
    config = BertConfig(**{**sizes, **fields})
    ids = jax.numpy.ones((1, 3), "int32")
    init = functools.partial(TokenClassifier(config, 2).init, deterministic=True)
    variables = random_like(jax.eval_shape(init, jax.random.key(0), ids, ids), seed=20)
    write_checkpoint(folder, config, variables["params"], labels=("O", "I-x"))
    return folder


def random_like(shapes, seed):
    """Return random arrays, so large that predictions differ."""
    draw = np.random.default_rng(seed)

    def like(path, leaf):
        if leaf.ndim == 1:
            return np.full(leaf.shape, path[-1].key == "scale", np.float32)
        return draw.normal(0, SCALE, leaf.shape).astype(np.float32)

    return jax.tree.map_with_path(like, shapes)


def save(component, folder):
    """Save a component with random weights, and return the folder."""
    folder.mkdir()
    shapes = jax.eval_shape(component.init, jax.random.key(1))
    component.save(folder, random_like(shapes, seed=24))
    return folder


def write_tagger(folder, encoder, **settings):
    return save(TokenClassification.from_pretrained(encoder, ["Drug", "Sign"], **settings), folder)


def write_classifier(folder, encoder, **settings):
    labels = ["cardiology", "surgery", "other"]
    return save(TextClassification.from_pretrained(encoder, labels, **settings), folder)


def write_relations(folder, encoder, **settings):
    made = RelationClassification.from_pretrained(encoder, ["Relieves"], KINDS, **settings)
    return save(made, folder)
