"""Tiny components and data for the tests of the core.

Everything that worker processes need is at the top level of the module, so that it can be pickled.
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax

from medjax import BatchData, Mean, Options, TrainableComponent, TrainerConfig, sharding
from medjax.batch import ROW_MASK
from medjax.data.ladder import Ladder, fix_shape
from medjax.schedules import as_schedule
from medjax.state import EpochLoss, create_state, make_optimizer
from medjax.step import make_train_step, with_update_due

FEATURES, HIDDEN, CLASSES = 4, 8, 3


def points(count, *, seed=0, weighted=False):
    """Return items ``{"x", "label", "weight"}`` of a small classification problem."""
    random = np.random.RandomState(seed)
    x = random.normal(size=(count, FEATURES)).astype(np.float32)
    labels = (x @ random.normal(size=(FEATURES, CLASSES))).argmax(-1)
    weights = random.randint(1, 4, size=count) if weighted else np.ones(count)
    return [
        {"x": x[i], "label": int(labels[i]), "weight": float(weights[i]), "name": f"item {i}"}
        for i in range(count)
    ]


def as_it_is(item):
    return dict(item)


def collate_points(examples):
    return BatchData(
        x=np.stack([example["x"] for example in examples]),
        labels=np.array([example["label"] for example in examples]),
        weights=np.array([example["weight"] for example in examples], np.float32),
        name=[example["name"] for example in examples],
    )


def init_mlp(key):
    first, second = jax.random.split(key)
    return {
        "params": {
            "w1": jax.random.normal(first, (FEATURES, HIDDEN)) * 0.5,
            "b1": jnp.zeros(HIDDEN),
            "w2": jax.random.normal(second, (HIDDEN, CLASSES)) * 0.5,
            "b2": jnp.zeros(CLASSES),
        }
    }


def save_arrays(path, variables):
    np.savez(path / "weights.npz", **variables["params"])


def load_arrays(path):
    return {"params": dict(np.load(path / "weights.npz"))}


def mlp(*, dropout=0.0, optimizer=optax.sgd, preprocess=as_it_is, collate=collate_points):
    """Return a classifier with one hidden layer; the loss weighs rows by ``weights``."""

    def forward(variables, batch, key, /, *, return_loss, eval_mode):
        params = variables["params"]
        hidden = jnp.tanh(batch["x"] @ params["w1"] + params["b1"])
        if dropout and not eval_mode:
            kept = jax.random.bernoulli(key, 1 - dropout, hidden.shape)
            hidden = jnp.where(kept, hidden / (1 - dropout), 0.0)
        logits = hidden @ params["w2"] + params["b2"]
        loss = None
        if return_loss:
            losses = optax.softmax_cross_entropy_with_integer_labels(logits, batch["labels"])
            loss = Mean.of(losses, batch["weights"] * batch[ROW_MASK])
        return BatchData(logits=logits), loss, {}

    return TrainableComponent(
        init_mlp, preprocess, collate, forward, optimizer, save_arrays, load_arrays
    )


def sentences(count, *, longest=30, seed=0):
    """Return items ``{"input_ids", "labels"}`` of many lengths."""
    random = np.random.RandomState(seed)
    lengths = random.randint(1, longest + 1, size=count)
    return [
        {"input_ids": random.randint(1, 20, size=n), "labels": random.randint(0, 3, size=n)}
        for n in lengths
    ]


def collate_sentences(examples):
    longest = max(len(example["input_ids"]) for example in examples)

    def padded(name, fill):
        column = np.full((len(examples), longest), fill)
        for row, example in zip(column, examples, strict=True):
            row[: len(example[name])] = example[name]
        return column

    return BatchData(
        input_ids=padded("input_ids", 0),
        labels=padded("labels", -100),
        length=[len(example["input_ids"]) for example in examples],
    )


def tagger(*, nb_labels=3, preprocess=as_it_is, collate=collate_sentences, optimizer=optax.sgd):
    """Return a token classifier over ragged columns."""

    def init(key):
        first, second = jax.random.split(key)
        return {
            "params": {
                "embedding": jax.random.normal(first, (20, 8)),
                "w": jax.random.normal(second, (8, nb_labels)),
            }
        }

    def forward(variables, batch, key, /, *, return_loss, eval_mode):
        params = variables["params"]
        logits = params["embedding"][batch["input_ids"]] @ params["w"]
        loss = None
        if return_loss:
            counted = (batch["labels"] >= 0) * batch[ROW_MASK][:, None]
            losses = optax.softmax_cross_entropy_with_integer_labels(
                logits, jnp.maximum(batch["labels"], 0)
            )
            loss = Mean.of(losses, counted)
        return BatchData(logits=logits, pooled=logits.sum(1)), loss, {}

    return TrainableComponent(
        init, preprocess, collate, forward, optimizer, save_arrays, load_arrays
    )


def config(folder, **fields):
    """Return a configuration of a small run."""
    fields = {"learning_rate": 0.1, "batch_size": 4, "nb_training_epochs": 2, "seed": 7} | fields
    return TrainerConfig(folder, **fields)


def one_device():
    return sharding.make_mesh(devices=jax.devices()[:1])


def start_state(
    component, *, options=None, accumulation=1, learning_rate=0.1, seed=7, is_grouped=False
):
    """Return a state laid out on one device, for batches that are grouped by length or not."""
    state = create_state(
        component,
        make_optimizer(component, options or Options()),
        seed=seed,
        learning_rate=learning_rate,
        accumulates=accumulation > 1,
    )
    if is_grouped:
        state = state.replace(losses=EpochLoss.empty())
    return sharding.put(state, sharding.state_shardings(state, one_device()))


def state_and_step(
    component,
    *,
    options=None,
    accumulation=1,
    learning_rate=0.1,
    schedule=None,
    seed=7,
    with_outputs=False,
    is_grouped=False,
):
    """Return a state on one device and the step that trains it."""
    options = options or Options()
    state = start_state(
        component,
        options=options,
        accumulation=accumulation,
        learning_rate=learning_rate,
        seed=seed,
        is_grouped=is_grouped,
    )
    step = make_train_step(
        state,
        schedule=as_schedule(schedule),
        options=options,
        accumulation=accumulation,
        mesh=one_device(),
        with_outputs=with_outputs,
    )
    return state, step


def on_device(component, items, nb_rows=None):
    """Return items as a batch on one device, padded to `nb_rows`."""
    host = component.collate([component.preprocess(item) for item in items])
    fixed = fix_shape(host, Ladder((16, 32), {}), nb_rows or len(items))
    return sharding.put(fixed, sharding.row_sharding(one_device()))


def run_steps(state, step, batches, *, flush_last=True):
    """Return the state and stats after training on `batches` in order."""
    stats = None
    for number, batch in enumerate(batches):
        is_last = number + 1 == len(batches)
        state, stats = step(state, with_update_due(batch, flush_last and is_last))
    return state, stats


def same_bits(a, b):
    """Return whether two trees hold the same bits."""

    def bits(leaf):
        if jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            leaf = jax.random.key_data(leaf)
        return np.asarray(leaf).tobytes()

    first, second = jax.tree.leaves(a), jax.tree.leaves(b)
    return list(map(bits, first)) == list(map(bits, second))
