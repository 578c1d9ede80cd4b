"""A checkpoint is read on different devices from those it was written on."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import medjax


def test_eight_devices_to_one_and_back(tmp_path):
    environment = os.environ | {
        "PYTHONPATH": str(Path(medjax.__file__).parents[1]),
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": "--xla_force_host_platform_device_count=8",
    }
    script = str(Path(__file__).with_name("topology.py"))
    done = subprocess.run(
        [sys.executable, "-W", "error", script, str(tmp_path)],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("equal\n")
