"""One of two processes that train together; run by test_processes as
``python one_of_two.py ADDRESS NUMBER SCENARIO FOLDER``. Writes its results to FOLDER/NUMBER.json.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import adapting
import jax
import job
import numpy as np
from breaking import At, die

import medjax
from medjax import sharding

OWN = 0


def only_in(number: int, action: Any) -> Any:
    return action if number == OWN else lambda: None


def seen_by() -> tuple[Any, list[Any]]:
    """Return a deterministic `preprocess` and a list of the items it was called with."""
    items: list[Any] = []

    def counted(item: Any) -> Any:
        items.append(item)
        return {"input_ids": item["tokens"], "scale": 1.0, "label": item["label"]}

    return counted, items


def healthy(folder: Path) -> dict[str, Any]:
    """Train in several ways that all succeed."""
    results: dict[str, Any] = {}
    printer = medjax.DefaultPrinterCallback()
    options = job.EVERY_3 | {"log_dir": folder / "log"}
    result = job.run(folder / "data", options=options, callback=printer)
    results["data"] = job.report(result, folder / "data")

    preprocess, items = seen_by()
    parts = job.component()._replace(preprocess=preprocess)
    nb_items: list[int] = []
    for window in (0, 4):
        del items[:]
        result = job.run(
            folder / f"window {window}",
            options={"length_window": window},
            parts=parts,
            nb_training_epochs=2,
        )
        results[f"window {window}"] = result.history
        nb_items.append(len(items))

    result = job.run(
        folder / "fsdp",
        mesh=sharding.make_mesh(2),
        parts=job.component(width=128),
        nb_training_epochs=1,
    )
    (folder / f"items {OWN}").write_text(json.dumps(nb_items))
    results["fsdp"] = job.digest(result.state)
    results["bytes"] = list(sharding.bytes_per_device(result.state.params["hidden"]).values())
    results["evaluate"] = evaluate()

    def stop() -> None:
        raise medjax.StopTraining(f"asked for by process {OWN}")

    result = job.run(folder / "stop", callback=At(1, 4, "train", only_in(1, stop)), seed=None)
    results["stop"] = [result.stop_reason, len(result.history), job.digest(result.state)]
    return results


def evaluate() -> dict[str, float]:
    """Evaluate fixed weights on 37 items: the last batch has no row for process 1."""
    parts = job.component()
    variables = jax.tree.map(np.asarray, parts.init(jax.random.key(3)))
    config = medjax.TrainerConfig("unused", batch_size=16)
    options = medjax.Options(**job.OPTIONS)
    data = job.items(37, seed=5)
    return medjax.evaluate(
        parts, variables, config, data, metrics_computer=job.Confidence(), options=options
    )


def adapted(folder: Path) -> dict[str, Any]:
    """Train a LoRA whose state is split between the processes, and a head alone."""
    encoder = folder.parent / "encoder"
    results: dict[str, Any] = {}
    for name, fsdp in (("lora", 2), ("head", 1)):
        mesh = sharding.make_mesh(fsdp)
        result = adapting.run(folder / name, encoder, name, mesh=mesh)
        results[name] = [result.history, job.digest(result.state)]
        if name == "lora":
            adapting.write_adapter(folder / f"adapter of {OWN}", encoder, result)
            nb_bytes = sharding.bytes_per_device(result.state.params["lora"])
            results["bytes"] = sum(nb_bytes.values())
    return results


def failing(folder: Path) -> None:
    """Raise in process 1 while process 0 waits for it in a step."""
    note = only_in(1, lambda: (folder / "failed").write_text(str(time.time())))

    def fail() -> None:
        note()
        die()

    job.run(folder / "out", callback=At(2, 5, "train", only_in(1, fail)), options=job.EVERY_3)


def failing_save(folder: Path) -> None:
    """Raise in process 0, which alone writes the component's files."""

    def save(path: Path, variables: Any) -> None:
        (folder / "failed").write_text(str(time.time()))
        raise OSError("no pencil")

    job.run(folder / "out", parts=job.component()._replace(save=save))


def failing_restore(folder: Path) -> None:
    """Find a damaged checkpoint, which process 0 alone reads."""
    job.run(folder / "out", nb_training_epochs=1)
    if OWN == 0:
        for record in (folder / "out").glob("checkpoint_*/training_state.json"):
            record.write_text("{")
        (folder / "failed").write_text(str(time.time()))
    job.run(folder / "out", resume="auto")


def differing(folder: Path) -> None:
    """Start the processes with different settings."""
    (folder / "failed").write_text(str(time.time()))
    data = medjax.Sampled(job.items(190 + OWN), np.arange(1, 191 + OWN))
    job.run(folder / "out", data=data, batch_size=16 + 8 * OWN, options={"max_grad_norm": 1.0})


def preempted(folder: Path) -> dict[str, Any]:
    """Get SIGTERM in process 1 at the first start; resume at the second."""
    signalled = only_in(1, lambda: os.kill(os.getpid(), signal.SIGTERM))
    first = not (folder / "out").exists()
    result = job.run(
        folder / "out",
        resume="auto",
        sleep=0.06 if first else 0.0,
        callback=At(2, 7, "train", signalled if first else lambda: None),
    )
    return job.report(result, folder / "out")


SCENARIOS = {
    each.__name__: each
    for each in (healthy, adapted, failing, failing_save, failing_restore, differing, preempted)
}


def main(address: str, number: int, scenario: str, folder: Path) -> None:
    global OWN
    OWN = number
    medjax.initialize_distributed(address, 2, number, timeout=120)
    results = SCENARIOS[scenario](folder)
    (folder / f"{number}.json").write_text(json.dumps(results))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), sys.argv[3], Path(sys.argv[4]))
