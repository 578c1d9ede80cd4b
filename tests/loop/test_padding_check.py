"""A loss that counts padding is refused before training, and by evaluate."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from tiny import (
    as_it_is,
    collate_points,
    collate_sentences,
    config,
    load_arrays,
    mlp,
    points,
    save_arrays,
    sentences,
    tagger,
)

import medjax
from medjax import BatchData, Mean, Options, TrainableComponent
from medjax.loop.padding_check import PaddingError

bce = optax.sigmoid_binary_cross_entropy


def collate(examples):
    batch = collate_points(examples)
    return BatchData(x=batch["x"], y=(batch["labels"] > 0).astype(np.float32))


def of_rows(loss, init_head=np.zeros):
    """Return a classifier of points whose loss is a function of logits and batch."""

    def init(key):
        return {"params": {"w": init_head((4, 1)), "b": np.zeros(1, np.float32)}}

    def forward(variables, batch, key, /, *, return_loss, eval_mode):
        logits = batch["x"] @ variables["params"]["w"] + variables["params"]["b"]
        return BatchData(logits=logits), loss(logits, batch), {}

    return TrainableComponent(init, as_it_is, collate, forward, optax.sgd, save_arrays, load_arrays)


def contrastive(logits, batch):
    """Return a loss of each row against the others, those of padding left out."""
    others = jnp.where(batch["row_mask"][None] > 0, -((logits - logits.T) ** 2), -1e9)
    return Mean.of(jax.nn.logsumexp(others, axis=1), batch["row_mask"])


EXACT = {
    "rows": lambda logits, batch: Mean.of(bce(logits[:, 0], batch["y"]), batch["row_mask"]),
    "classes": lambda logits, batch: Mean.of(bce(logits, batch["y"][:, None]), batch["row_mask"]),
    "other rows": contrastive,
    "rounded": lambda logits, batch: Mean.of(
        bce(logits[:, 0].astype(jnp.bfloat16), batch["y"]), batch["row_mask"]
    ),
}
COUNTING = {
    "no mask": lambda logits, batch: Mean.of(bce(logits[:, 0], batch["y"])),
    "broadcast": lambda logits, batch: Mean.of(bce(logits, batch["y"]), batch["row_mask"]),
    "mean": lambda logits, batch: Mean.of(bce(logits[:, 0], batch["y"]).mean()),
    "rows of mean": lambda logits, batch: Mean(
        bce(logits[:, 0], batch["y"]).mean(), jnp.float32(len(batch["y"]))
    ),
}


def train(tmp_path, component, data, **options):
    settings = config(tmp_path, nb_training_epochs=1, learning_rate=0.0)
    return medjax.train(
        component, settings, data, data, callback=[], options=Options(**options)
    ).history


@pytest.mark.parametrize("name", EXACT)
def test_an_exact_loss_is_trained(tmp_path, name):
    component = of_rows(EXACT[name])
    assert train(tmp_path, component, points(9))


def test_a_loss_that_is_not_finite_cannot_be_compared(tmp_path):
    component = of_rows(lambda logits, batch: Mean.of(logits[:, 0] / 0))
    with pytest.raises(medjax.NonFiniteError):
        train(tmp_path, component, points(9))


@pytest.mark.parametrize("name", COUNTING)
def test_a_loss_that_counts_rows_of_padding_is_refused(tmp_path, name):
    """The head is zeros, so the loss of all rows is the same with these weights."""
    component = of_rows(COUNTING[name])
    with pytest.raises(PaddingError, match=r"2 rows of padding.*Mean.of\(losses, batch\["):
        train(tmp_path, component, points(9))
    variables = component.init(None)
    with pytest.raises(PaddingError, match="2 rows of padding"):
        medjax.evaluate(component, variables, config(tmp_path), points(9))
    assert train(tmp_path, component, points(9), verify_padding=False)


def pooled(*, masked, key_matters=False):
    """Return a classifier of sentences by the mean of their embeddings."""
    parts = tagger()

    def collate(examples):
        batch = collate_sentences(examples)
        return BatchData(
            input_ids=batch["input_ids"],
            attention_mask=(batch["labels"] >= 0).astype(np.int32),
            y=np.array([len(e["labels"]) % 3 for e in examples]),
        )

    def forward(variables, batch, key, /, *, return_loss, eval_mode):
        embedded = variables["params"]["embedding"][batch["input_ids"]]
        mask = batch["attention_mask"][..., None] if masked else jnp.ones_like(embedded[..., :1])
        logits = (embedded * mask).sum(1) / mask.sum(1) @ variables["params"]["w"]
        if key_matters:
            logits = logits + jax.random.normal(key, logits.shape)
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, batch["y"])
        return BatchData(logits=logits), Mean.of(losses, batch["row_mask"]), {}

    return parts._replace(collate=collate, forward=forward)


def test_a_mean_over_tokens_of_padding_is_refused(tmp_path):
    data, ladder = sentences(12), {"length_ladder": (16, 32)}
    with pytest.raises(PaddingError, match=r"padded from length 16 to 32.*attention_mask"):
        train(tmp_path, pooled(masked=False), data, **ladder)
    assert train(tmp_path, pooled(masked=True), data, **ladder)
    assert train(tmp_path, pooled(masked=False), data, length_ladder=(32,))  # is no padding


def test_what_is_random_in_evaluation_cannot_be_compared(tmp_path):
    component = pooled(masked=True, key_matters=True)
    assert train(tmp_path, component, sentences(12), length_ladder=(16, 32))


def test_it_is_checked_once(tmp_path):
    seen = []
    plain = mlp()

    def forward(variables, batch, key, /, *, return_loss, eval_mode):
        seen.append(len(batch["row_mask"]))
        return plain.forward(variables, batch, key, return_loss=return_loss, eval_mode=eval_mode)

    component = plain._replace(forward=forward)
    variables = component.init(jax.random.key(0))
    medjax.evaluate(component, variables, config(tmp_path), points(9))
    assert sorted(set(seen)) == [3, 4, 5]
