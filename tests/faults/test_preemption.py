"""After a signal, the state is saved, the process ends, and the resumed run is identical."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import traceback
from pathlib import Path

import jax
import job
import pytest
from breaking import At, DiedError, EvalSteps, die
from jax.experimental import multihost_utils

import medjax
from medjax.runtime.preemption import Preemption

HANDLED = ("SIGTERM", "SIGUSR1", "SIGINT")


def _send(name: str):
    return lambda: os.kill(os.getpid(), getattr(signal, name))


def _sent_and_died() -> None:
    os.kill(os.getpid(), signal.SIGTERM)
    die()


def _position(out: Path) -> tuple[int, int]:
    record = json.loads((medjax.last_checkpoint(out) / "training_state.json").read_text())
    return record["progress"]["epoch"], record["progress"]["batch"]


@pytest.mark.parametrize(("name", "code"), [("SIGTERM", 143), ("SIGUSR1", 138), ("SIGINT", None)])
def test_a_signal_saves_at_that_batch(name, code, tmp_path, reference):
    out = tmp_path / "out"
    before = [signal.getsignal(getattr(signal, each)) for each in HANDLED]
    with pytest.raises(KeyboardInterrupt if code is None else SystemExit) as raised:
        job.run(out, callback=At(2, 7, "train", _send(name)))
    if code is not None:
        assert raised.value.code == code
    assert _position(out) == (2, 8)  # the current batch was completed, none was lost
    assert medjax.last_checkpoint(out).name.startswith("checkpoint_002_batch_8_")
    assert [signal.getsignal(getattr(signal, each)) for each in HANDLED] == before
    assert job.report(job.run(out, resume="auto"), out) == reference


def test_a_handled_ctrl_c_names_the_checkpoint_without_a_traceback(tmp_path, caplog):
    with pytest.raises(KeyboardInterrupt) as raised:
        job.run(tmp_path / "out", callback=At(1, 4, "train", _send("SIGINT")))
    assert type(raised.value) is KeyboardInterrupt
    shown = traceback.format_exception(raised.value)
    assert not any(name in line for line in shown for name in ("train.py", "epochs.py", "run.py"))
    last = medjax.last_checkpoint(tmp_path / "out")
    assert f"Saved {last}; start again with resume='auto'" in caplog.text


def test_a_signal_on_the_last_batch_of_an_epoch(tmp_path, reference):
    out = tmp_path / "out"
    with pytest.raises(SystemExit):
        job.run(out, callback=At(1, 12, "train", _send("SIGTERM")))
    assert _position(out) == (1, 13)
    assert job.report(job.run(out, resume="auto"), out) == reference


@pytest.mark.parametrize(("epoch", "batch"), [(2, 0), (4, 2)])
def test_an_interrupted_evaluation_is_repeated(epoch, batch, tmp_path, reference):
    out = tmp_path / "out"
    with pytest.raises(SystemExit) as raised:
        job.run(out, callback=At(epoch, batch, "eval", _send("SIGTERM")))
    assert raised.value.code == 143
    assert _position(out) == (epoch, 13)
    evaluated = []

    class Seen:
        def on_step_begin(self, step_idx: int, phase: str) -> None:
            evaluated.append((step_idx, phase))

    assert (
        job.report(job.run(out, resume="auto", callback=Seen()), out)["state"]
        == (reference["state"])
    )
    assert evaluated[:3] == [(0, "eval"), (1, "eval"), (2, "eval")]


def test_callbacks_count_an_interrupted_evaluation_once(tmp_path):
    whole, resumed = EvalSteps(), EvalSteps()
    job.run(tmp_path / "whole", callback=whole)
    stop = At(2, 1, "eval", _send("SIGTERM"))
    with pytest.raises(SystemExit):
        job.run(tmp_path / "cut", callback=[EvalSteps(), stop])
    job.run(tmp_path / "cut", resume="auto", callback=resumed)
    assert resumed.seen == whole.seen


def test_a_signal_at_the_end_of_the_run(tmp_path, reference):
    """Everything is done and saved; the process still ends as the signal asks."""
    out = tmp_path / "out"

    class Late:
        def on_train_end(self) -> None:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(SystemExit) as raised:
        job.run(out, callback=Late())
    assert raised.value.code == 143
    assert job.report(job.run(out, resume="auto"), out) == reference


def test_a_second_ctrl_c_does_not_wait(tmp_path):
    out = tmp_path / "out"

    def twice() -> None:
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        job.run(out, callback=At(1, 4, "train", twice), options=job.EVERY_3)
    assert _position(out) == (1, 3)  # the checkpoint before; none was written now


def test_a_signal_that_is_ignored_stays_ignored(tmp_path, reference):
    """As in background jobs: a Ctrl-C is meant for the job in the foreground."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    out = tmp_path / "out"
    result = job.run(out, callback=At(2, 7, "train", _send("SIGINT")), options=job.EVERY_3)
    assert signal.getsignal(signal.SIGINT) == signal.SIG_IGN
    assert job.report(result, out)["history"] == reference["history"]


def test_a_handler_not_set_from_python_is_replaced_by_the_default(monkeypatch):
    """Python reports it as None and cannot restore it."""
    original = signal.signal
    monkeypatch.setattr(
        signal, "signal", lambda signum, handler: original(signum, handler) and None
    )
    before = [original(getattr(signal, each), signal.SIG_DFL) for each in HANDLED]
    try:
        with medjax.runtime.preemption.Preemption():
            assert all(callable(signal.getsignal(getattr(signal, each))) for each in HANDLED)
        assert [signal.getsignal(getattr(signal, each)) for each in HANDLED] == [signal.SIG_DFL] * 3
    finally:
        for each, handler in zip(HANDLED, before, strict=True):
            original(getattr(signal, each), handler)


def test_ctrl_c_twice_within_a_save_leaves_the_previous_checkpoint(tmp_path, reference):
    """The first asks to stop after the batch, the second does not wait for the component."""
    out = tmp_path / "out"
    parts = job.component()

    def save(path: Path, variables: dict) -> None:
        if "checkpoint_002" in str(path):
            for _ in range(2):
                signal.raise_signal(signal.SIGINT)
        parts.save(path, variables)

    with pytest.raises(KeyboardInterrupt):
        job.run(out, parts=parts._replace(save=save))
    assert [path.name[:14] for path in out.iterdir()] == ["checkpoint_001"]
    resumed = job.report(job.run(out, resume="auto", options=job.EVERY_3), out)
    assert resumed["state"] == reference["state"]
    assert resumed["history"] == reference["history"]


def test_a_run_that_was_interrupted_many_times(tmp_path, reference):
    out = tmp_path / "out"
    places = [(1, 0), (1, 1), (1, 5), (3, 2), (4, 11)]
    for epoch, batch in places:
        with pytest.raises(SystemExit):
            job.run(out, resume="auto", callback=At(epoch, batch, "train", _send("SIGTERM")))
        assert _position(out) == (epoch, batch + 1)
    assert job.report(job.run(out, resume="auto"), out) == reference


def test_a_process_exits_with_143_and_resumes(tmp_path, reference):
    environment = os.environ | {
        "PYTHONPATH": str(Path(medjax.__file__).parents[1]),
        "JAX_PLATFORMS": "cpu",
    }
    out, report = tmp_path / "out", tmp_path / "report.json"
    script = str(Path(__file__).with_name("job.py"))
    command = [sys.executable, script, str(out), str(report)]
    process = subprocess.Popen([*command, "--sleep", "0.1"], env=environment)
    try:
        deadline = time.monotonic() + 120
        while not list(out.glob("checkpoint_*")):
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.01)
        process.send_signal(signal.SIGTERM)
        assert process.wait(120) == 143
    finally:
        process.kill()
        process.wait()
    assert not report.exists()
    assert not list(out.glob(".saving-*"))
    assert job.report(job.run(out, resume="auto"), out) == reference


@pytest.mark.parametrize(
    ("door", "signals"),
    [
        ("medjax_torch", 2),
        pytest.param("medjax", 50, marks=pytest.mark.slow),
        pytest.param("medjax_torch", 20, marks=pytest.mark.slow),
    ],
)
def test_signals_at_random_moments_lose_no_step(door, signals):
    root, here = Path(medjax.__file__).parents[1], Path(__file__).parent
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join(map(str, [root, root / "interop", here])),
        "JAX_PLATFORMS": "cpu",
    }
    command = [sys.executable, str(here / "preempt.py"), "--door", door]
    done = subprocess.run(
        [*command, "--signals", str(signals), "--seed", "5"],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    figures = json.loads(done.stdout)
    print(figures)
    assert figures["signals"] == signals
    assert figures["steps lost"] == 0
    assert figures["slowest exit in seconds"] < 5
    assert figures["identical runs"] == figures["completed runs"] > 0


def test_a_signal_after_the_last_save_still_ends_the_process():
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit) as raised, Preemption():
        os.kill(os.getpid(), signal.SIGTERM)
    assert raised.value.code == 143
    with pytest.raises(DiedError), Preemption():  # what went wrong is told rather than the signal
        _sent_and_died()
    assert signal.getsignal(signal.SIGTERM) == before


def test_several_processes_number_their_calls_consecutively(monkeypatch):
    asked = []
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    monkeypatch.setattr(
        multihost_utils,
        "reached_preemption_sync_point",
        lambda number: asked.append(number) or number == 3,
    )
    preemption = Preemption()
    assert [preemption.requested() for _ in range(4)] == [False, False, True, True]
    assert asked == [1, 2, 3, 4]
