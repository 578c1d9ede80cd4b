"""Compare steps per second of medkit's trainer and medjax_torch on the same tiny torch component.

An MLP of two layers on batches of 32, Adam, no evaluation metrics: this measures what a trainer
spends on a step besides computing. medjax_torch trains one batch per dispatch, its default, and
several (`Options.steps_per_dispatch`). Runs alternate in one process; the first epoch of a run
traces and compiles, and is left out.

    pip install "medjax[bench]"
    python benchmarks/overhead_torch.py
"""

from __future__ import annotations

import argparse
import importlib
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import jax
import torch
from torch import nn

import medjax_torch

EPOCHS = 3


class Component:
    """A classifier of eight numbers, with medkit's methods."""

    def __init__(self, batch_data: Any) -> None:
        self.device = torch.device("cpu")
        self.module = nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 3))
        self._batch_data = batch_data

    def configure_optimizer(self, lr: float) -> torch.optim.Optimizer:
        """Return Adam."""
        return torch.optim.Adam(self.module.parameters(), lr=lr)

    def preprocess(self, item: dict[str, Any]) -> dict[str, Any]:
        """Return the item as it is."""
        return item

    def collate(self, rows: list[dict[str, Any]]) -> Any:
        """Stack the rows."""
        return self._batch_data({name: torch.stack([row[name] for row in rows]) for name in "xy"})

    def forward(self, batch: Any, return_loss: bool, eval_mode: bool) -> Any:
        """Return logits and cross-entropy."""
        self.module.train(not eval_mode)
        logits = self.module(batch["x"])
        return self._batch_data(logits=logits), nn.functional.cross_entropy(logits, batch["y"])

    def save(self, path: Path) -> None:
        """Write the weights."""
        torch.save(self.module.state_dict(), Path(path) / "weights.pt")

    def load(self, path: Path) -> None:
        """Read the weights."""
        weights = torch.load(Path(path) / "weights.pt", weights_only=True)
        self.module.load_state_dict(weights)


def steps_a_second(package: str, data: list[Any], nb_steps: int, **more: Any) -> float:
    """Return training steps per second after the first epoch; `more` goes to the Trainer."""
    training = importlib.import_module(package)
    utils = importlib.import_module(f"{package}.utils")
    marks: list[float] = []

    class Marks(training.TrainerCallback):
        def on_step_begin(self, step: int, nb_batches: int, phase: str) -> None:
            if step == 0:
                marks.append(time.perf_counter())

        def on_epoch_end(self, **_: Any) -> None:
            """Accept medkit's ``epoch_duration``, which its base class does not take."""

    with tempfile.TemporaryDirectory() as folder:
        config = training.TrainerConfig(
            output_dir=folder,
            learning_rate=1e-3,
            nb_training_epochs=EPOCHS,
            batch_size=32,
            seed=0,
            checkpoint_period=0,
        )
        component = Component(utils.BatchData)
        training.Trainer(component, config, data, data[:32], callback=Marks(), **more).train()
    begins, ends = marks[::2], marks[1::2]  # of training, and of the evaluation after it
    seconds = [end - begin for begin, end in zip(begins, ends, strict=True)]
    return nb_steps / statistics.median(seconds[1:])


def main() -> None:
    """Run both in turn and print the ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--steps-per-dispatch", type=int, nargs="+", default=[1, 32])
    args = parser.parse_args()
    torch.manual_seed(0)
    inputs, classes = torch.randn(32 * args.steps, 8), torch.randint(0, 3, (32 * args.steps,))
    data = [{"x": x, "y": y} for x, y in zip(inputs, classes, strict=True)]
    print(f"jax {jax.__version__}, torch {torch.__version__}, {jax.devices()[0].platform}")
    ratios: dict[int, list[float]] = {group: [] for group in args.steps_per_dispatch}
    for _ in range(args.repeats):
        theirs = steps_a_second("medkit.training", data, args.steps)
        print(f"medkit {theirs:.0f} steps per second")
        for group, measured in ratios.items():
            options = medjax_torch.Options(steps_per_dispatch=group)
            ours = steps_a_second("medjax_torch", data, args.steps, options=options)
            measured.append(ours / theirs)
            print(f"medjax_torch {ours:.0f}, {group} per dispatch: x {measured[-1]:.2f}")
    for group, measured in ratios.items():
        print(f"median, {group} per dispatch: {statistics.median(measured):.2f} times as fast")


if __name__ == "__main__":
    main()
