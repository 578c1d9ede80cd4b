"""The two runs whose checkpoints are stored; they must never change.

Each has two epochs of six batches, with accumulation, dropout and a schedule that has state.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import torch
from torch import nn
from torch.nn import functional

import medjax
import medjax_torch

CONFIG: dict[str, Any] = {
    **{"learning_rate": 0.05, "nb_training_epochs": 2, "batch_size": 4, "seed": 5},
    **{"gradient_accumulation_steps": 2, "do_metrics_in_training": True},
}
OPTIONS: dict[str, Any] = {"save_interval_steps": 3, "length_window": 0}


def points(count: int, seed: int) -> list[dict[str, Any]]:
    random = np.random.RandomState(seed)
    x = random.standard_normal((count, 3)).astype(np.float32)
    return [{"x": row.tolist(), "y": int(row[0] > row[1])} for row in x]


class Accuracy:
    def prepare_batch(self, model_output: Any, input_batch: Any) -> dict[str, list[Any]]:
        predicted = np.asarray(model_output["logits"]).argmax(-1)
        return {"found": list(predicted), "true": np.asarray(input_batch["y"]).tolist()}

    def compute(self, all_data: dict[str, list[Any]]) -> dict[str, float]:
        pairs = zip(all_data["found"], all_data["true"], strict=True)
        return {"accuracy": float(np.mean([int(predicted) == true for predicted, true in pairs]))}


def functional_component() -> medjax.TrainableComponent:
    def init(key: jax.Array) -> dict[str, Any]:
        kernel = 0.5 * jax.random.normal(key, (3, 2))
        return {"params": {"kernel": kernel, "bias": jnp.zeros(2)}, "seen": {"x": jnp.zeros(3)}}

    def collate(rows: Any) -> medjax.BatchData:
        return medjax.BatchData(
            x=np.float32([row["x"] for row in rows]), y=np.int32([row["y"] for row in rows])
        )

    def forward(variables, batch, key, *, return_loss, eval_mode):  # type: ignore[no-untyped-def]
        x, params = batch["x"], variables["params"]
        if not eval_mode:
            x = jnp.where(jax.random.bernoulli(key, 0.8, x.shape), x / 0.8, 0.0)
        logits = x @ params["kernel"] + params["bias"]
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, batch["y"])
        changed = {} if eval_mode else {"seen": {"x": variables["seen"]["x"] + x.sum(0)}}
        loss = medjax.Mean.of(losses, batch[medjax.ROW_MASK]) if return_loss else None
        return medjax.BatchData(logits=logits), loss, changed

    def save(path: Path, variables: dict[str, Any]) -> None:
        (path / "weights.json").write_text(json.dumps(jax.tree.map(np.ndarray.tolist, variables)))

    def load(path: Path) -> dict[str, Any]:
        raise NotImplementedError

    return medjax.TrainableComponent(init, dict, collate, forward, optax.adamw, save, load)


def train_medjax(output_dir: Path, callback: Any = (), **arguments: Any) -> list[Any]:
    """Run the functional run and return its history."""
    parts = arguments.pop("parts", None) or functional_component()
    result = medjax.train(
        parts,
        medjax.TrainerConfig(output_dir, **CONFIG),
        points(24, 0),
        points(9, 1),
        metrics_computer=Accuracy(),
        schedule=medjax.reduce_on_plateau(patience=0, factor=0.5),
        callback=[medjax.EarlyStopping("loss", 3), *callback],
        options=medjax.Options(**OPTIONS),
        **arguments,
    )
    return result.history


class TorchComponent:
    device = torch.device("cpu")

    def __init__(self, width: int = 4) -> None:
        torch.manual_seed(1)
        self.model = nn.Sequential(nn.Linear(3, width), nn.Dropout(0.2), nn.Linear(width, 2))

    def configure_optimizer(self, lr: float) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.model.parameters(), lr=lr)

    def preprocess(self, item: dict[str, Any]) -> dict[str, Any]:
        return item

    def collate(self, examples: list[dict[str, Any]]) -> medjax_torch.BatchData:
        return medjax_torch.BatchData(
            x=torch.tensor([example["x"] for example in examples]),
            y=torch.tensor([example["y"] for example in examples]),
        )

    def forward(self, batch: Any, return_loss: bool, eval_mode: bool) -> Any:
        self.model.train(not eval_mode)
        logits = self.model(batch["x"])
        return medjax_torch.BatchData(logits=logits), functional.cross_entropy(logits, batch["y"])

    def save(self, path: Any) -> None:
        torch.save(self.model.state_dict(), Path(path) / "model.pt")

    def load(self, path: Any) -> None:
        self.model.load_state_dict(torch.load(Path(path) / "model.pt", weights_only=True))


def train_medjax_torch(output_dir: Path, callback: Any = (), **arguments: Any) -> list[Any]:
    """Run the drop-in's run and return its history."""
    trainer = medjax_torch.Trainer(
        arguments.pop("parts", None) or TorchComponent(),
        medjax_torch.TrainerConfig(output_dir, **CONFIG),
        points(24, 0),
        points(9, 1),
        Accuracy(),
        lambda optimizer: torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, patience=0),
        list(callback),
        options=medjax_torch.Options(**OPTIONS),
    )
    return trainer.train(**arguments)


RUNS = {"medjax": train_medjax, "medjax_torch": train_medjax_torch}


class StopBefore(medjax.TrainerCallback):
    """Ends a run before a batch, as a fault would."""

    def __init__(self, epoch: int, batch: int) -> None:
        self.place, self.epoch = (epoch, batch), 0

    def on_epoch_begin(self, epoch: int) -> None:
        self.epoch = epoch

    def on_step_begin(self, step_idx: int, phase: str) -> None:
        if (self.epoch, step_idx) == self.place and phase == "train":
            raise InterruptedError


def plain(state: Any) -> dict[str, Any]:
    """Return names, types and values of all leaves of a state, ready for JSON."""
    leaves = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(state):
        if jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            leaf = jax.random.key_data(leaf)
        values = np.asarray(jax.device_get(leaf))
        leaves[jax.tree_util.keystr(path)] = [str(values.dtype), values.tolist()]
    return leaves


class Restored:
    """Remembers what `CheckpointStore.load` returns, within a ``with`` statement."""

    def __init__(self) -> None:
        self.state: dict[str, Any] = {}
        self.progress: dict[str, Any] = {}

    def __enter__(self) -> Restored:
        self._original = original = medjax.CheckpointStore.load

        def load(store: Any, checkpoint: Any, *args: Any) -> Any:
            state = original(store, checkpoint, *args)
            self.state, self.progress = plain(state), checkpoint.record["progress"]
            return state

        medjax.CheckpointStore.load = load  # type: ignore[method-assign]
        return self

    def __exit__(self, *_: object) -> None:
        medjax.CheckpointStore.load = self._original  # type: ignore[method-assign]
