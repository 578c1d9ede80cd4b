"""Runs of a tiny component that are resumed with other settings."""

import dataclasses
import json

import numpy as np
import optax
from tiny import config, mlp, points

import medjax
from medjax import Options, TrainerConfig

DATA, EVAL = points(24), points(9, seed=1)
FIELDS = {field.name for field in dataclasses.fields(TrainerConfig)}


class Scores:
    """An accuracy, and a second metric that gets worse with every epoch."""

    def __init__(self):
        self.epoch = 0

    def prepare_batch(self, output, batch):
        return {"predicted": list(output["logits"].argmax(-1)), "true": list(batch["labels"])}

    def compute(self, columns):
        self.epoch += 1
        right = np.mean(
            [a == b for a, b in zip(columns["predicted"], columns["true"], strict=True)]
        )
        return {"accuracy": float(right), "falling": 1.0 / self.epoch}


def run(folder, *, epochs, resume=None, component=None, options=None, **more):
    fields = {name: more.pop(name) for name in list(more) if name in FIELDS}
    return medjax.train(
        component or mlp(optimizer=optax.adam, dropout=0.2),
        config(folder, nb_training_epochs=epochs, **fields),
        more.pop("data", DATA),
        more.pop("eval_data", EVAL),
        options=Options(**(options or {})),
        callback=more.pop("callback", []),
        resume=resume,
        **more,
    )


class Dies(medjax.TrainerCallback):
    def __init__(self, epoch, batch):
        self.at, self.epoch = (epoch, batch), 0

    def on_epoch_begin(self, epoch):
        self.epoch = epoch

    def on_step_begin(self, step_idx, phase):
        if (self.epoch, step_idx) == self.at and phase == "train":
            raise RuntimeError("died")


def rates_of(result):
    record = json.loads((result.last_checkpoint / "training_state.json").read_text())
    return record["progress"]["schedule"]["learning_rate"], float(result.state.learning_rate)
