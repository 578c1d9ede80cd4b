from __future__ import annotations

import signal
from pathlib import Path

import job
import pytest
from breaking import At, DiedError, die


@pytest.fixture(autouse=True)
def ctrl_c_interrupts():
    """Set the handler that Python has by itself, unless it was started in the background."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture(scope="session")
def reference(tmp_path_factory: pytest.TempPathFactory) -> dict:
    """Return the report of the job when nothing goes wrong."""
    folder = tmp_path_factory.mktemp("reference") / "out"
    return job.report(job.run(folder, options=job.EVERY_3), folder)


@pytest.fixture(scope="session")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a run that died in epoch 3 after its checkpoint at batch 3: within an
    accumulation, with all kinds of state in use. Copy it before use."""
    folder = tmp_path_factory.mktemp("saved") / "out"
    with pytest.raises(DiedError):
        job.run(folder, callback=At(3, 3, "train", die), options=job.EVERY_3)
    return folder
