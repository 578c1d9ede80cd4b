"""Trains a torch component in one of two processes; prints the losses, as JSON.

Run by test_torch_sharding.py as ``python torch_on_two_processes.py ADDRESS NUMBER FOLDER``.
"""

import json
import sys
from pathlib import Path

import torch
from torch import nn
from trained import Classifier, make

import medjax
from medjax import sharding


class Wide(Classifier):
    """Has matrices large enough to be sharded."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(1)
        self.model = nn.Sequential(
            nn.Linear(6, 1024), nn.ReLU(), nn.Dropout(0.2), nn.Linear(1024, 3)
        )


def main(address, number, folder):
    medjax.initialize_distributed(address, 2, number, timeout=120)
    losses = {}
    for name, fsdp in {"data": 1, "fsdp": 2}.items():
        trainer = make(
            folder / name,
            Wide(),
            mesh=sharding.make_mesh(fsdp),
            batch_size=16,
            nb_training_epochs=2,
        )
        history = trainer.train()
        losses[name] = [[row["train"]["loss"], row["eval"]["loss"]] for row in history]
        losses[f"{name} resumed"] = len(trainer.train(resume="auto"))
    print(json.dumps(losses))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), Path(sys.argv[3]))
