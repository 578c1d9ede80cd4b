"""Measure memory and time of repeated train() calls in one process, as in a notebook or a search.

Each run trains a new component that owns 16 MB of weights and is dropped afterwards; then a single
component is trained as often. Memory is that of the process after a garbage collection, in MB:

    python benchmarks/repetition.py medjax
    PYTHONPATH=interop python benchmarks/repetition.py medjax_torch --runs 30
"""

from __future__ import annotations

import argparse
import gc
import logging
import shutil
import tempfile
import time
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import optax

import medjax

ROWS, WIDTH = 2048, 2048  # float32: 16 MB
ITEMS = 8


class Weights:
    """What a component of medjax owns: an array that its methods use."""

    def __init__(self) -> None:
        self.table = np.random.default_rng(0).normal(size=(ROWS, WIDTH)).astype(np.float32)

    def init(self, key: Any) -> dict[str, Any]:
        """Return a copy of the weights."""
        del key
        return {"params": {"table": jnp.array(self.table)}}

    def forward(
        self, variables: Any, batch: Any, key: Any, *, return_loss: bool, eval_mode: bool
    ) -> tuple[Any, Any, dict[str, Any]]:
        """Return, as the loss, the mean square of one row of the table for each item."""
        del key, return_loss, eval_mode
        rows = variables["params"]["table"][batch["at"]]
        loss = medjax.Mean((rows**2).mean(1).sum(), jnp.float32(rows.shape[0]))
        return medjax.BatchData(norm=rows[:, :1]), loss, {}


def core_component() -> tuple[Any, Any]:
    """Return a component of medjax, and the object that must not outlive it."""
    weights = Weights()
    component = medjax.TrainableComponent(
        init=weights.init,
        preprocess=lambda item: item,
        collate=lambda rows: medjax.BatchData(at=np.array([row["at"] for row in rows], np.int32)),
        forward=weights.forward,
        configure_optimizer=optax.sgd,
        save=lambda path, variables: None,
        load=lambda path: {},
    )
    return component, weights


def core_train(component: Any, folder: Path) -> None:
    """Train a component for an epoch."""
    data = [{"at": number} for number in range(ITEMS)]
    medjax.train(component, configuration(folder), data, data, callback=[])


def torch_component() -> tuple[Any, Any]:
    """Return a torch component, and the object that must not outlive it."""
    import torch
    from torch import nn

    import medjax_torch

    class Component:
        device = torch.device("cpu")

        def __init__(self) -> None:
            self.model = nn.Embedding(ROWS, WIDTH)

        def configure_optimizer(self, lr: float) -> Any:
            return torch.optim.SGD(self.model.parameters(), lr=lr)

        def preprocess(self, item: Any) -> Any:
            return item

        def collate(self, rows: Any) -> Any:
            return medjax_torch.BatchData(at=torch.tensor([row["at"] for row in rows]))

        def forward(self, batch: Any, return_loss: bool, eval_mode: bool) -> Any:
            rows = self.model(batch["at"])
            return medjax_torch.BatchData(norm=rows[:, :1]), (rows**2).mean()

        def save(self, path: Any) -> None:
            """Save nothing."""

        def load(self, path: Any) -> None:
            """Load nothing."""

    component = Component()
    return component, component


def torch_train(component: Any, folder: Path) -> None:
    """Train a component for an epoch."""
    import medjax_torch

    data = [{"at": number} for number in range(ITEMS)]
    trainer = medjax_torch.Trainer(component, configuration(folder), data, data, callback=[])
    trainer.train()


def configuration(folder: Path) -> Any:
    """Return the configuration of a run of one epoch of two batches."""
    return medjax.TrainerConfig(
        output_dir=str(folder), learning_rate=0.1, nb_training_epochs=1, batch_size=4, seed=0
    )


def resident() -> float:
    """Return the resident memory of the process, in MB."""
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096 / 1e6


def repeat(
    make: Callable[[], tuple[Any, Any]], train: Callable[[Any, Path], None], runs: int
) -> None:
    """Print memory, living components and seconds, run by run."""
    owners: list[Any] = []
    for number in range(1, runs + 1):
        component, owner = make()
        owners.append(weakref.ref(owner))
        del owner
        seconds = run(train, component)
        del component
        memory = resident()
        alive = sum(reference() is not None for reference in owners)
        print(f"fresh {number:3} {memory:8.1f} MB {alive:3} alive {seconds:6.2f} s", flush=True)
    component, owner = make()
    del owner
    for number in range(1, runs + 1):
        seconds = run(train, component)
        print(f"same  {number:3} {resident():8.1f} MB {seconds:16.2f} s", flush=True)


def run(train: Callable[[Any, Path], None], component: Any) -> float:
    """Train once into a folder that is deleted afterwards; return the seconds."""
    folder = Path(tempfile.mkdtemp())
    began = time.perf_counter()
    train(component, folder)
    seconds = time.perf_counter() - began
    shutil.rmtree(folder)
    return seconds


def main() -> None:
    """Measure the package that the command line names."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("package", choices=["medjax", "medjax_torch"])
    parser.add_argument("--runs", type=int, default=30)
    args = parser.parse_args()
    logging.getLogger("medjax").setLevel(logging.ERROR)
    if args.package == "medjax":
        repeat(core_component, core_train, args.runs)
    else:
        repeat(torch_component, torch_train, args.runs)


if __name__ == "__main__":
    main()
