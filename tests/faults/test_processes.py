"""Two processes train like one, and end together."""

from __future__ import annotations

import functools
import json
import os
import re
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

import adapting
import jax
import job
import numpy as np
import one_of_two
import pytest
import trained_folders

import medjax
from medjax.models import TEXT_CLASSIFICATION, Adapter

HERE = Path(__file__).parent
FAILURES = ("failing", "failing_save", "failing_restore", "differing")


class Ended(NamedTuple):
    """How a pair of processes ended: exit codes, standard errors and wall time."""

    codes: list[int]
    errors: list[str]
    at: float
    folder: Path

    def json(self, number: int) -> Any:
        return json.loads((self.folder / f"{number}.json").read_text())


def begin(scenario: str, folder: Path) -> list[subprocess.Popen]:
    folder.mkdir(exist_ok=True)
    with socket.create_server(("localhost", 0)) as free:
        address = f"localhost:{free.getsockname()[1]}"
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join([str(Path(medjax.__file__).parents[1]), str(HERE)]),
        "JAX_PLATFORMS": "cpu",
    }
    command = [sys.executable, "-W", "error", str(HERE / "one_of_two.py"), address]
    started = []
    for number in (0, 1):
        with (folder / f"{number}.txt").open("w") as errors:
            started.append(
                subprocess.Popen(
                    [*command, str(number), scenario, str(folder)],
                    env=environment,
                    stdout=subprocess.DEVNULL,
                    stderr=errors,
                )
            )
    return started


def finish(processes: list[subprocess.Popen], folder: Path) -> Ended:
    try:
        codes = [process.wait(180) for process in processes]
    finally:
        for process in processes:
            process.kill()
            process.wait()
    errors = [(folder / f"{number}.txt").read_text() for number in (0, 1)]
    return Ended(codes, errors, time.time(), folder)


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Ended]:
    """Return how the pair of each scenario ended; they run at the same time."""
    root = tmp_path_factory.mktemp("pairs")
    trained_folders.write_encoder(root / "encoder", hidden_size=64)
    ended: dict[str, Ended] = {}
    # The first round compiles what the second finds in the cache.
    first = ("healthy", "adapted")
    for names in (first, [name for name in one_of_two.SCENARIOS if name not in first]):
        begun = {name: begin(name, root / name) for name in names}
        ended |= {name: finish(processes, root / name) for name, processes in begun.items()}
    return ended


def losses(history: list[dict[str, dict[str, float]]]) -> list[list[float]]:
    return [list(row[phase].values()) for row in history for phase in row]


def test_two_processes_give_the_history_of_one(pairs, reference):
    pair = pairs["healthy"]
    assert pair.codes == [0, 0], pair.errors
    assert pair.json(0) == pair.json(1)
    reported = pair.json(0)
    np.testing.assert_allclose(
        losses(reported["data"]["history"]), losses(reference["history"]), rtol=1e-6
    )
    assert reported["data"]["folder"] == reference["folder"]
    for name in ("epoch", "seed", "data"):
        assert reported["data"]["progress"][name] == reference["progress"][name]
    assert reported["evaluate"] == pytest.approx(one_of_two.evaluate(), rel=1e-6)


@pytest.mark.parametrize("window", [0, 4])
def test_each_process_preprocesses_its_own_rows(window, pairs, tmp_path):
    preprocess, items = one_of_two.seen_by()
    parts = job.component()._replace(preprocess=preprocess)
    expected = job.run(
        tmp_path, options={"length_window": window}, parts=parts, nb_training_epochs=2
    )
    history = pairs["healthy"].json(0)[f"window {window}"]
    np.testing.assert_allclose(losses(history), losses(expected.history), rtol=1e-6)
    # Grouped by length, a process measures half the items and then lacks half of its rows, once.
    epochs = 2.0 if window == 0 else 2.5
    each = epochs * job.NB_ITEMS / 2 + epochs * 40 / 2
    for number in (0, 1):
        counts = json.loads((pairs["healthy"].folder / f"items {number}").read_text())
        count = counts[window > 0]
        assert count == pytest.approx(each, rel=0.1)
        assert count < 0.75 * len(items)


def test_a_checkpoint_of_two_processes_is_read_by_one(pairs, tmp_path):
    out = pairs["healthy"].folder / "fsdp"
    parts = job.component(width=128)
    resumed = job.run(out, resume="auto", parts=parts, nb_training_epochs=1)
    assert job.digest(resumed.state) == pairs["healthy"].json(0)["fsdp"]
    nb_bytes = sum(leaf.nbytes for leaf in resumed.state.params["hidden"].values())
    assert max(pairs["healthy"].json(0)["bytes"]) <= nb_bytes / 2 + 128 * 4


@pytest.mark.parametrize("name", adapting.TARGETS)
def test_two_processes_train_few_weights_like_one(name, pairs, tmp_path):
    pair, encoder = pairs["adapted"], pairs["adapted"].folder.parent / "encoder"
    assert pair.codes == [0, 0], pair.errors
    assert pair.json(0) == pair.json(1)
    history, digest = pair.json(0)[name]
    alone = adapting.run(tmp_path, encoder, name)
    # Adam divides gradients by their size, so that what is rounded differently grows step by step.
    np.testing.assert_allclose(losses(history), losses(alone.history), rtol=1e-4)
    out = pair.folder / name
    assert [path.name[:14] for path in sorted(out.iterdir())] == [
        path.name[:14] for path in sorted(tmp_path.iterdir())
    ]
    resumed = adapting.run(out, encoder, name, resume="auto")
    assert job.digest(resumed.state) == digest
    merged = adapting.lora(encoder, name).merged(resumed.state.variables)
    loaded = adapting.classifier(encoder).load(medjax.last_checkpoint(out))
    jax.tree.map(functools.partial(np.testing.assert_allclose, atol=1e-6), loaded, merged)


def test_process_0_writes_the_adapter(pairs):
    pair, encoder = pairs["adapted"], pairs["adapted"].folder.parent / "encoder"
    assert [path.name for path in pair.folder.glob("adapter*")] == ["adapter of 0"]
    config = adapting.classifier(encoder).model.config
    found = Adapter.read(pair.folder / "adapter of 0", config, TEXT_CLASSIFICATION)
    resumed = adapting.run(pair.folder / "lora", encoder, "lora", resume="auto")
    expected = resumed.state.variables
    restored = adapting.lora(encoder, "lora").with_adapter(expected, found)
    jax.tree.map(np.testing.assert_array_equal, restored["params"], expected["params"])
    nb_bytes = sum(leaf.nbytes for leaf in jax.tree.leaves(expected["params"]["lora"]))
    assert pair.json(0)["bytes"] < 0.8 * nb_bytes  # it was split between the processes


def test_a_stop_in_one_process_stops_both(pairs):
    reason, epochs, _ = pairs["healthy"].json(0)["stop"]
    assert (reason, epochs) == ("asked for by process 1", 1)


def test_only_process_0_prints_and_writes(pairs):
    pair = pairs["healthy"]
    assert "Running training" in pair.errors[0]
    assert "training" not in pair.errors[1].lower()
    rows = (pair.folder / "log" / "metrics.csv").read_text().splitlines()
    assert len(rows) == 1 + job.NB_EPOCHS


@pytest.mark.parametrize(
    ("scenario", "number", "shown"),
    [
        ("failing", 1, "DiedError: a fault"),
        ("failing_save", 0, "OSError: no pencil"),
        ("failing_restore", 0, "CorruptCheckpointError"),
    ],
)
def test_a_failure_in_one_process_ends_both(scenario, number, shown, pairs):
    pair = pairs[scenario]
    assert pair.codes[number] == 1
    assert pair.codes[1 - number] != 0
    assert pair.at - float((pair.folder / "failed").read_text()) < 60
    assert "Traceback" in pair.errors[number]
    assert shown in pair.errors[number]
    assert f"process {number} " in pair.errors[1 - number]
    assert "failed" in pair.errors[1 - number]


def test_a_failed_pair_resumes(pairs):
    """The checkpoint before the failure is complete, and there is no incomplete one."""
    out = pairs["failing"].folder / "out"
    record = json.loads((medjax.last_checkpoint(out) / "training_state.json").read_text())
    assert (record["progress"]["epoch"], record["progress"]["batch"]) == (2, 3)


def test_processes_that_differ_are_refused(pairs):
    pair = pairs["differing"]
    host = socket.gethostname()
    for error in pair.errors:
        assert (
            f"TrainerConfig.batch_size is 16 on process 0 ({host}), 24 on process 1 ({host}); "
            f"items is 190 on process 0 ({host}), 191 on process 1 ({host})"
        ) in error
        digests = re.search(
            r"the SHA-256 of the sampling weights is '(\w+)' on .*, '(\w+)' on", error
        )
        assert digests is not None
        assert digests[1] != digests[2]
        assert "Options.max_grad_norm is" not in error
    assert pair.codes == [1, 1]


def test_sigterm_to_one_process_saves_in_both(pairs):
    pair = pairs["preempted"]
    assert pair.codes == [143, 143], pair.errors
    out = pair.folder / "out"
    record = json.loads((medjax.last_checkpoint(out) / "training_state.json").read_text())
    position = record["progress"]["epoch"], record["progress"]["batch"]
    assert (2, 8) <= position < (job.NB_EPOCHS, 13)
    done = record["progress"]["callbacks"]["Counter:0"]["batches"]
    assert done == 13 * (position[0] - 1) + position[1]  # no step done is lost
    again = finish(begin("preempted", pair.folder), pair.folder)
    assert again.codes == [0, 0], again.errors
    assert again.json(0)["history"] == pairs["healthy"].json(0)["data"]["history"]
    assert again.json(0)["state"] == pairs["healthy"].json(0)["data"]["state"]
