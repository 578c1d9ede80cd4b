"""Two processes killed at random moments end like uninterrupted ones."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import medjax

HERE = Path(__file__).parent


@pytest.mark.parametrize(("kills", "seed"), [(3, 5), pytest.param(30, 3, marks=pytest.mark.slow)])
def test_killed_pairs_complete_identically(kills: int, seed: int):
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join([str(Path(medjax.__file__).parents[1]), str(HERE)]),
        "JAX_PLATFORMS": "cpu",
    }
    command = [sys.executable, str(HERE / "kill_pair.py")]
    done = subprocess.run(
        [*command, "--kills", str(kills), "--seed", str(seed)],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    figures = json.loads(done.stdout)
    print(figures)
    assert figures["kills"] == kills
    assert figures["kills that left an unfinished folder"] >= kills // 5
    assert figures["completed runs"] > 0
    assert figures["identical runs"] == figures["completed runs"], done.stderr
