"""A run killed at random moments ends like an uninterrupted one, in both packages."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import medjax

HERE = Path(__file__).parent


@pytest.mark.parametrize(
    ("door", "kills", "seed", "per_run"),
    [
        ("medjax", 10, 5, 20),
        ("medjax_torch", 3, 1, 20),
        pytest.param("medjax", 100, 3, 6, marks=pytest.mark.slow),
        pytest.param("medjax_torch", 20, 4, 5, marks=pytest.mark.slow),
    ],
)
def test_killed_runs_complete_identically(door: str, kills: int, seed: int, per_run: int):
    root = Path(medjax.__file__).parents[1]
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join(map(str, [root, root / "interop", HERE])),
        "JAX_PLATFORMS": "cpu",
    }
    command = [sys.executable, str(HERE / "kill.py"), "--door", door, "--per-run", str(per_run)]
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
