"""The small job of the drop-in: a torch component with every kind of state, to be interrupted.

As a script: ``python torch_job.py OUTPUT_DIR REPORT.json [--sleep SECONDS]``, as `job`.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import job
import numpy as np
import torch
from torch import nn
from torch.nn import functional

import medjax_torch

NB_ITEMS, NB_EPOCHS = 96, 4


def items(nb_items: int = NB_ITEMS, seed: int = 0) -> list[dict[str, Any]]:
    """Return points of six numbers in one of three classes."""
    points = np.random.RandomState(seed).standard_normal((nb_items, 6)).astype(np.float32)
    classes = (points[:, :2].sum(1) > 0).astype(int) + (points[:, 2] > 1)
    return [{"x": point.tolist(), "y": int(y)} for point, y in zip(points, classes, strict=True)]


class Classifier:
    """Points to three classes, with dropout and running statistics."""

    device = torch.device("cpu")

    def __init__(self) -> None:
        torch.manual_seed(1)
        self.model = nn.Sequential(
            nn.Linear(6, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.2), nn.Linear(16, 3)
        )

    def configure_optimizer(self, lr: float) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.model.parameters(), lr=lr)

    def preprocess(
        self, item: dict[str, Any], *, rng: np.random.Generator | None = None
    ) -> dict[str, Any]:
        noise = 0.0 if rng is None else 0.01 * rng.standard_normal(6)
        return {**item, "x": np.float32(item["x"]) + noise}

    def collate(self, examples: list[dict[str, Any]]) -> medjax_torch.BatchData:
        return medjax_torch.BatchData(
            x=torch.tensor(np.array([example["x"] for example in examples], np.float32)),
            y=torch.tensor([example["y"] for example in examples]),
        )

    def forward(self, batch: Any, return_loss: bool, eval_mode: bool) -> Any:
        self.model.train(not eval_mode)
        logits = self.model(batch["x"])
        loss = functional.cross_entropy(logits, batch["y"]) if return_loss else None
        return medjax_torch.BatchData(logits=logits), loss

    def save(self, path: Any) -> None:
        torch.save(self.model.state_dict(), Path(path) / "model.pt")

    def load(self, path: Any) -> None:
        self.model.load_state_dict(torch.load(Path(path) / "model.pt", weights_only=True))


class SlowClassifier(Classifier):
    """Preprocesses an item slowly enough for signals to arrive."""

    def preprocess(self, item: dict[str, Any]) -> dict[str, Any]:
        time.sleep(0.02)
        return item


class Accuracy:
    """A metrics computer whose columns are torch's and numpy's, as real ones are."""

    def prepare_batch(self, model_output: Any, input_batch: Any) -> dict[str, list[Any]]:
        predicted = model_output["logits"].argmax(-1)
        return {"predicted": list(predicted.numpy()), "true": input_batch["y"].tolist()}

    def compute(self, all_data: dict[str, list[Any]]) -> dict[str, float]:
        pairs = zip(all_data["predicted"], all_data["true"], strict=True)
        return {"accuracy": float(np.mean([predicted == true for predicted, true in pairs]))}


def make(
    output_dir: Path,
    *,
    callback: Any = (),
    sleep: float = 0.0,
    options: dict[str, Any] | None = None,
    data: Any = None,
    component: Any = None,
    patience: int = 3,
    **config: Any,
) -> medjax_torch.Trainer:
    """Return a trainer of the job; `options` and `config` change single values."""
    torch.set_num_threads(1)
    settings = {"nb_training_epochs": NB_EPOCHS, "batch_size": 8, "seed": 11, **config}
    return medjax_torch.Trainer(
        component or Classifier(),
        medjax_torch.TrainerConfig(
            output_dir,
            learning_rate=0.02,
            gradient_accumulation_steps=2,
            do_metrics_in_training=True,
            **settings,
        ),
        items() if data is None else data,
        items(24, seed=1),
        metrics_computer=Accuracy(),
        lr_scheduler_builder=lambda optimizer: torch.optim.lr_scheduler.ReduceLROnPlateau(
            optimizer, patience=0, factor=0.5, threshold=0.05
        ),
        callback=[
            job.Counter(sleep),
            *(callback if isinstance(callback, list | tuple) else [callback]),
        ],
        options=medjax_torch.Options(early_stopping_patience=patience, **(options or {})),
    )


def report(trainer: medjax_torch.Trainer, history: Any) -> dict[str, Any]:
    """Return everything that two equal runs have in common, as restored from JSON."""
    assert trainer.best_checkpoint is not None
    assert trainer.last_checkpoint is not None
    record = json.loads((trainer.last_checkpoint / "training_state.json").read_text())
    component: Any = trainer.component
    weights = {name: tensor.numpy() for name, tensor in component.model.state_dict().items()}
    optimizer = trainer.optimizer.state_dict()
    moments = {
        f"{number}.{name}": tensor.numpy()
        for number, slots in optimizer["state"].items()
        for name, tensor in slots.items()
    }
    contents = {
        "weights": job.digest(weights),
        "moments": job.digest(moments),
        "groups": optimizer["param_groups"],
        "scheduler": trainer.lr_scheduler.state_dict(),
        "history": history,
        "progress": {**record["progress"], "settings": {}},  # options of saving may differ
        "best": trainer.best_checkpoint.name[:14],
        "last": trainer.last_checkpoint.name[:14],
        "folder": sorted(path.name[:14] for path in Path(trainer.output_dir).iterdir()),
    }
    return json.loads(json.dumps(contents, default=str))


def complete(
    output_dir: Path, *, callback: Any = (), sleep: float = 0.0, **more: Any
) -> dict[str, Any]:
    """Train with ``resume="auto"`` until the end and return the report."""
    trainer = make(output_dir, callback=callback, sleep=sleep, options=job.EVERY_3, **more)
    return report(trainer, trainer.train(resume="auto"))


if __name__ == "__main__":
    job.main(complete)
