"""A small training job with every kind of state, which the tests of this folder run and break.

As a script: ``python job.py OUTPUT_DIR REPORT.json [--sleep SECONDS] [--diary FILE]`` trains with
``resume="auto"`` and writes the report of the completed run.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from diary import Diary

import medjax
from medjax import sharding

NB_ITEMS, NB_EPOCHS = 203, 4


def items(nb_items: int = NB_ITEMS, seed: int = 0) -> list[dict[str, Any]]:
    """Return sequences of 1 to 8 tokens; the class depends on their sum, with some noise."""
    rng = np.random.RandomState(seed)
    made = []
    for _ in range(nb_items):
        tokens = rng.randint(1, 20, size=rng.randint(1, 9)).tolist()
        noisy = rng.rand() < 0.2
        made.append({"tokens": tokens, "label": int(noisy) ^ int(sum(tokens) % 40 > 20)})
    return made


def preprocess(item: dict[str, Any], *, rng: np.random.Generator | None = None) -> dict[str, Any]:
    scale = item.get("scale", 1.0)
    if rng is not None:
        scale += 0.01 * rng.standard_normal()
    return {"input_ids": item["tokens"], "scale": scale, "label": item["label"]}


def collate(examples: Any) -> medjax.BatchData:
    longest = max(len(example["input_ids"]) for example in examples)
    ids = np.zeros((len(examples), longest), np.int32)
    for row, example in zip(ids, examples, strict=True):
        row[: len(example["input_ids"])] = example["input_ids"]
    return medjax.BatchData(
        input_ids=ids,
        scale=np.array([example["scale"] for example in examples], np.float32),
        label=np.array([example["label"] for example in examples], np.int32),
    )


def component(width: int = 16, optimizer: Any = optax.adamw) -> medjax.TrainableComponent:
    """Return an MLP with dropout and a running mean; its own files are plain JSON."""

    def init(key: jax.Array) -> dict[str, Any]:
        keys = jax.random.split(key, 3)
        params = {
            "embed": 0.5 * jax.random.normal(keys[0], (20, width)),
            "hidden": {
                "kernel": 0.3 * jax.random.normal(keys[1], (width, width)),
                "bias": jnp.zeros(width),
            },
            "out": 0.3 * jax.random.normal(keys[2], (width, 2)),
        }
        return {"params": params, "running": {"mean": jnp.zeros(width)}}

    def forward(variables, batch, key, *, return_loss, eval_mode):  # type: ignore[no-untyped-def]
        params, mean = variables["params"], variables["running"]["mean"]
        known = (batch["input_ids"] > 0)[..., None]
        x = (params["embed"][batch["input_ids"]] * known).sum(1) * batch["scale"][:, None]
        mask = batch[medjax.ROW_MASK]
        batch_mean = (x * mask[:, None]).sum(0) / mask.sum()
        x = jnp.tanh((x - mean) @ params["hidden"]["kernel"] + params["hidden"]["bias"])
        if not eval_mode:
            x = jnp.where(jax.random.bernoulli(key, 0.8, x.shape), x / 0.8, 0.0)
        logits = x @ params["out"]
        outputs = medjax.BatchData(p=jax.nn.softmax(logits).max(-1), label=logits.argmax(-1))
        changed = {} if eval_mode else {"running": {"mean": 0.9 * mean + 0.1 * batch_mean}}
        if not return_loss:
            return outputs, None, changed
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, batch["label"])
        return outputs, medjax.Mean.of(losses, mask), changed

    def save(path: Path, variables: dict[str, Any]) -> None:
        (path / "weights.json").write_text(json.dumps(jax.tree.map(np.ndarray.tolist, variables)))

    def load(path: Path) -> dict[str, Any]:
        loaded = json.loads((path / "weights.json").read_text())
        return {name: _arrays(tree) for name, tree in loaded.items()}

    return medjax.TrainableComponent(init, preprocess, collate, forward, optimizer, save, load)


def _arrays(tree: Any) -> Any:
    if isinstance(tree, dict):
        return {name: _arrays(value) for name, value in tree.items()}
    return np.asarray(tree, np.float32)


class Confidence:
    """A metrics computer whose columns are numpy scalars and tuples, as real ones are."""

    def prepare_batch(self, model_output: Any, input_batch: Any) -> dict[str, list[Any]]:
        pairs = zip(model_output["label"].tolist(), input_batch["label"].tolist(), strict=True)
        return {"p": model_output["p"], "pairs": list(pairs)}

    def compute(self, all_data: dict[str, list[Any]]) -> dict[str, float]:
        counts = {pair: all_data["pairs"].count(pair) for pair in sorted(set(all_data["pairs"]))}
        right = sum(count for (predicted, true), count in counts.items() if predicted == true)
        return {
            "confidence": float(np.sum(all_data["p"]) / len(all_data["p"])),
            "accuracy": right / len(all_data["pairs"]),
        }


class Counter(medjax.TrainerCallback):
    """Counts training batches and epochs, and takes its time with each batch."""

    def __init__(self, sleep: float = 0.0) -> None:
        self.sleep, self.nb_batches, self.nb_epochs = sleep, 0, 0

    def on_step_end(self, step_idx: int, nb_batches: int, phase: str) -> None:
        time.sleep(self.sleep)
        self.nb_batches += phase == "train"

    def on_epoch_end(self, epoch: int) -> None:
        self.nb_epochs += 1

    def state_dict(self) -> dict[str, Any]:
        return {"batches": self.nb_batches, "epochs": self.nb_epochs}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.nb_batches, self.nb_epochs = state["batches"], state["epochs"]


DEFAULTS: dict[str, Any] = {
    "learning_rate": 0.02,
    "nb_training_epochs": NB_EPOCHS,
    "batch_size": 16,
    "seed": 11,
    "gradient_accumulation_steps": 2,
    "do_metrics_in_training": True,
}
OPTIONS: dict[str, Any] = {"length_ladder": (8,), "length_window": 4}
EVERY_3 = {"save_interval_steps": 3}


def run(
    output_dir: Path,
    *,
    resume: Any = None,
    callback: Any = (),
    sleep: float = 0.0,
    options: dict[str, Any] | None = None,
    data: list[dict[str, Any]] | None = None,
    parts: medjax.TrainableComponent | None = None,
    patience: int = 3,
    mesh: Any = None,
    **config: Any,
) -> medjax.TrainResult:
    """Train the job; `options` and `config` change single values.

    It stops after `patience` epochs that brought nothing.
    """
    return medjax.train(
        parts or component(),
        medjax.TrainerConfig(output_dir, **{**DEFAULTS, **config}),
        items() if data is None else data,
        items(40, seed=1),
        metrics_computer=Confidence(),
        schedule=medjax.reduce_on_plateau(patience=0, factor=0.5, threshold=0.05),
        callback=[
            Counter(sleep),
            medjax.EarlyStopping("loss", patience),
            *(callback if isinstance(callback, list | tuple) else [callback]),
        ],
        options=medjax.Options(**{**OPTIONS, **(options or {})}),
        mesh=mesh,
        resume=resume,
    )


def digest(tree: Any) -> str:
    """Return a hash over names, types, shapes and bytes of all leaves."""
    total = hashlib.sha256()
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        if jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            leaf = jax.random.key_data(leaf)
        values = np.ascontiguousarray(sharding.to_host(leaf))
        total.update(f"{jax.tree_util.keystr(path)} {values.dtype} {values.shape}".encode())
        total.update(values.tobytes())
    return total.hexdigest()


def report(result: medjax.TrainResult, output_dir: Path) -> dict[str, Any]:
    """Return everything that two equal runs have in common, as restored from JSON."""
    assert result.best_checkpoint is not None
    assert result.last_checkpoint is not None
    record = json.loads((result.last_checkpoint / "training_state.json").read_text())
    contents = {
        "state": digest(result.state),
        "history": result.history,
        "progress": {**record["progress"], "settings": {}},  # options of saving may differ
        "learning_rate": float(result.state.learning_rate),
        "stop_reason": result.stop_reason,
        "best": result.best_checkpoint.name[:14],
        "last": result.last_checkpoint.name[:14],
        "folder": sorted(path.name[:14] for path in output_dir.iterdir()),
    }
    return json.loads(json.dumps(contents))


def complete(
    output_dir: Path, *, callback: Any = (), sleep: float = 0.0, **more: Any
) -> dict[str, Any]:
    """Train with ``resume="auto"`` until the end and return the report."""
    result = run(output_dir, resume="auto", callback=callback, sleep=sleep, options=EVERY_3, **more)
    return report(result, output_dir)


def main(complete: Callable[..., dict[str, Any]]) -> None:
    """Run a job with the arguments of the command line."""
    parser = argparse.ArgumentParser()
    parser.add_argument("output_dir", type=Path)
    parser.add_argument("report_file", type=Path)
    parser.add_argument("--sleep", type=float, default=0.0, help="seconds added to each batch")
    parser.add_argument("--diary", type=Path, help="file to write every training batch into")
    parser.add_argument("--epochs", type=int, default=NB_EPOCHS)
    arguments = parser.parse_args()
    callback = [Diary(arguments.diary)] if arguments.diary else []
    completed = complete(
        arguments.output_dir,
        callback=callback,
        sleep=arguments.sleep,
        nb_training_epochs=arguments.epochs,
        patience=max(3, arguments.epochs),
    )
    arguments.report_file.write_text(json.dumps(completed))


if __name__ == "__main__":
    main(complete)
