"""A Trainer's evaluation outside of training retains freed memory, as `train` does."""

import json
import os
import subprocess
import sys
from pathlib import Path

from pages import PAGES, forget_settings, needs_glibc

pytestmark = needs_glibc


def test_evaluation_outside_of_training_keeps_memory(monkeypatch):
    forget_settings(monkeypatch)
    # In a process of its own, as an allocation that fails changes glibc's heap for good.
    done = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("evaluated_memory.py"))],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    cleared = json.loads(done.stdout.splitlines()[-1])
    assert cleared
    assert max(cleared) < PAGES / 10
