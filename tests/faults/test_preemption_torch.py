"""Each signal in the drop-in: the state is saved at that batch, and the run is resumed from it."""

from __future__ import annotations

import json
import os
import signal

import job
import pytest
import torch_job
from breaking import At, EvalSteps

import medjax

HANDLED = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)


def _send(*signums: int):
    def send() -> None:
        for signum in signums:
            os.kill(os.getpid(), signum)

    return send


def _position(out) -> tuple[int, int]:
    record = json.loads((medjax.last_checkpoint(out) / "training_state.json").read_text())
    return record["progress"]["epoch"], record["progress"]["batch"]


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory) -> dict:
    return torch_job.complete(tmp_path_factory.mktemp("uninterrupted") / "out")


@pytest.mark.parametrize(
    ("phase", "batch", "signum", "code"),
    [
        ("train", 6, signal.SIGTERM, 143),
        ("eval", 1, signal.SIGUSR1, 138),
        ("train", 11, signal.SIGINT, None),
    ],
)
def test_a_signal_saves_at_that_batch(phase, batch, signum, code, tmp_path, uninterrupted):
    out = tmp_path / "out"
    before = [signal.getsignal(each) for each in HANDLED]
    trainer = torch_job.make(out, callback=At(2, batch, phase, _send(signum)))
    with pytest.raises(KeyboardInterrupt if code is None else SystemExit) as raised:
        trainer.train()
    if code is not None:
        assert raised.value.code == code
    assert _position(out) == (2, batch + 1 if phase == "train" else 12)
    assert [signal.getsignal(each) for each in HANDLED] == before
    assert torch_job.complete(out) == uninterrupted


def test_callbacks_count_an_interrupted_evaluation_once(tmp_path):
    whole, resumed = EvalSteps(), EvalSteps()
    torch_job.complete(tmp_path / "whole", callback=whole)
    stop = At(2, 1, "eval", _send(signal.SIGTERM))
    with pytest.raises(SystemExit):
        torch_job.make(tmp_path / "cut", callback=[EvalSteps(), stop]).train()
    torch_job.complete(tmp_path / "cut", callback=resumed)
    assert resumed.seen == whole.seen


def test_a_second_ctrl_c_does_not_wait(tmp_path, uninterrupted):
    out = tmp_path / "out"
    stop = At(2, 4, "train", _send(signal.SIGINT, signal.SIGINT))
    with pytest.raises(KeyboardInterrupt):
        torch_job.make(out, callback=stop, options=job.EVERY_3).train()
    assert _position(out) == (2, 3)  # the checkpoint before; none was written now
    assert torch_job.complete(out) == uninterrupted
