"""Trains a torch component on eight forced CPU devices in several layouts; prints the losses.

Run by test_torch_sharding.py in a process of its own.
"""

import json
import tempfile

import jax
from trained import Classifier, make

from medjax import sharding

LAYOUTS = {"one": (1, 1), "data": (8, 1), "fsdp": (8, 8)}


def main():
    losses = {}
    for name, (devices, fsdp) in LAYOUTS.items():
        mesh = sharding.make_mesh(fsdp, devices=jax.devices()[:devices])
        with tempfile.TemporaryDirectory() as folder:
            history = make(
                folder, Classifier(dropout=0.2), mesh=mesh, batch_size=16, nb_training_epochs=2
            ).train()
        losses[name] = [[row["train"]["loss"], row["eval"]["loss"]] for row in history]
    print(json.dumps(losses))


if __name__ == "__main__":
    main()
