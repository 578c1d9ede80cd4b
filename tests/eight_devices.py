"""Trains on eight forced CPU devices in several layouts and prints the results as JSON.

Run by test_sharding.py in a process of its own, since the number of devices is fixed at start.
"""

import json
import sys
import tempfile

import jax
import numpy as np
import optax
from tiny import config, mlp, points, sentences, tagger

import medjax
from medjax import sharding
from medjax.step import training

LAYOUTS = {"one": (1, 1), "data": (8, 1), "fsdp": (8, 8), "both": (8, 4), "apart": (8, 4)}


def large():
    """Return a classifier with a matrix that is large enough to be split."""
    component = mlp(optimizer=optax.adam)

    def init(key):
        variables = component.init(key)
        ballast = jax.random.normal(key, (4, 2048)) * 0.01
        return {"params": {**variables["params"], "ballast": ballast}}

    def forward(variables, batch, key, /, **flags):
        params = variables["params"]
        batch = medjax.BatchData(
            {**batch, "x": batch["x"] + (batch["x"] @ params["ballast"]).mean(-1, keepdims=True)}
        )
        return component.forward(variables, batch, key, **flags)

    return component._replace(init=init, forward=forward)


def run(layout, batch_size):
    devices, fsdp = LAYOUTS[layout]
    training.LARGE = 1 if layout == "apart" else 1_000_000  # gradients and update compiled apart
    mesh = sharding.make_mesh(fsdp, devices=jax.devices()[:devices])
    with tempfile.TemporaryDirectory() as folder:
        result = medjax.train(
            large(),
            config(
                folder, batch_size=batch_size, learning_rate=0.02, gradient_accumulation_steps=2
            ),
            points(30, weighted=True),
            points(13, seed=2, weighted=True),
            callback=[],
            mesh=mesh,
        )
    bytes_by_device = sharding.bytes_per_device((result.state.params, result.state.opt_state))
    return {
        "losses": [[row["train"]["loss"], row["eval"]["loss"]] for row in result.history],
        "w1": np.asarray(result.state.params["w1"]).tolist(),
        "bytes": [max(bytes_by_device.values()), len(bytes_by_device)],
        "compilations": result.nb_compilations,
    }


class Lengths:
    def prepare_batch(self, model_output, input_batch):
        assert model_output["logits"].shape[:2] == input_batch["labels"].shape
        return {"rows": input_batch["length"]}

    def compute(self, all_data):
        return {"rows": len(all_data["rows"])}


def evaluate(batch_size):
    component = tagger()
    return medjax.evaluate(
        component,
        component.init(jax.random.key(0)),
        config("unused", batch_size=batch_size),
        sentences(21, seed=1),
        metrics_computer=Lengths(),
        options=medjax.Options(length_ladder=(32,)),
    )


if __name__ == "__main__":
    results = {layout: run(layout, 6) for layout in LAYOUTS}  # 6 does not divide by 8
    results["eval"] = {size: evaluate(size) for size in (1, 7, 32)}
    results["devices"] = jax.device_count()
    json.dump(results, sys.stdout)
