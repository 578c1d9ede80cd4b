"""Tiny random checkpoints of every family, made with transformers."""

import numpy as np
import pytest
import torch
import transformers

SIZES = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
}
MODERNBERT_SIZES = {**SIZES, "pad_token_id": 0}
ELECTRA_SIZES = {**SIZES, "embedding_size": 24}
DISTILBERT_SIZES = {"dim": 32, "n_layers": 2, "n_heads": 4, "hidden_dim": 64}
# As in v3, with fewer buckets.
DEBERTA_SIZES = {
    **SIZES,
    "relative_attention": True,
    "position_buckets": 4,
    "norm_rel_ebd": "layer_norm",
    "share_att_key": True,
    "pos_att_type": "p2c|c2p",
    "position_biased_input": False,
}
SIZES_OF_TYPE = {
    "distilbert": DISTILBERT_SIZES,
    "electra": ELECTRA_SIZES,
    "deberta-v2": DEBERTA_SIZES,
    "modernbert": MODERNBERT_SIZES,
}


def make_torch_classifier(model_type: str, num_labels: int = 3, **fields):
    """Return a random token classifier of transformers, in evaluation mode."""
    sizes = SIZES_OF_TYPE.get(model_type, SIZES)
    fields = {"vocab_size": 99, "max_position_embeddings": 40, **sizes, **fields}
    config = transformers.AutoConfig.for_model(model_type, num_labels=num_labels, **fields)
    torch.manual_seed(0)
    model = transformers.AutoModelForTokenClassification.from_config(config)
    # A new model has biases of zero and scales of one, so swapped tensors would go unnoticed.
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model.eval()


@pytest.fixture
def torch_classifier():
    """Return a function that makes random token classifiers."""
    return make_torch_classifier


@pytest.fixture(
    params=[
        "bert",
        "roberta",
        "camembert",
        "xlm-roberta",
        "distilbert",
        "electra",
        "deberta-v2",
        "modernbert",
    ]
)
def checkpoint(request, tmp_path):
    """A token classifier of transformers of each family, and the folder it was saved to."""
    model = make_torch_classifier(request.param)
    model.save_pretrained(tmp_path / "checkpoint")
    return model, tmp_path / "checkpoint"


@pytest.fixture
def bert_folder(tmp_path):
    """The folder of a tiny BERT token classifier with five classes."""
    make_torch_classifier("bert", num_labels=5).save_pretrained(tmp_path / "bert")
    return tmp_path / "bert"


@pytest.fixture
def make_batch():
    """Return a function that makes (tokens, mask) of four rows, padded to `length`."""

    def make(pad_token_id: int = 0, length: int = 12) -> tuple[np.ndarray, np.ndarray]:
        rng = np.random.default_rng(0)
        tokens = rng.integers(5, 99, (4, 12))[:, np.arange(length) % 12]
        mask = (np.arange(length) < np.array([12, 7, 3, 1])[:, None]).astype(np.int32)
        return np.where(mask, tokens, pad_token_id).astype(np.int32), mask

    return make
