"""Over several devices a torch component trains as on one."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np


def test_eight_devices_give_the_history_of_one():
    environment = {
        **os.environ,
        "XLA_FLAGS": "--xla_force_host_platform_device_count=8 --xla_backend_optimization_level=0",
        "JAX_PLATFORMS": "cpu",
        "PYTHONPATH": os.pathsep.join(sys.path),
    }
    script = Path(__file__).with_name("torch_on_eight_devices.py")
    done = subprocess.run(
        [sys.executable, str(script)], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    losses = json.loads(done.stdout)
    for layout in ("data", "fsdp"):
        np.testing.assert_allclose(losses[layout], losses["one"], atol=1e-5)
