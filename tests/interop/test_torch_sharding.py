"""A torch component trains on several devices as it does on one."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
from torch_on_two_processes import Wide
from trained import make


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


def test_two_processes_give_the_history_of_one(tmp_path):
    with socket.create_server(("localhost", 0)) as free:
        address = f"localhost:{free.getsockname()[1]}"
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "PYTHONPATH": os.pathsep.join(sys.path)}
    script = str(Path(__file__).with_name("torch_on_two_processes.py"))
    processes = [
        subprocess.Popen(
            [sys.executable, script, address, str(number), str(tmp_path / "two")],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for number in (0, 1)
    ]
    printed = [process.communicate(timeout=170) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], printed
    results = [json.loads(out.splitlines()[-1]) for out, _ in printed]
    assert results[0] == results[1]
    history = make(tmp_path / "one", Wide(), batch_size=16, nb_training_epochs=2).train()
    wanted = [[row["train"]["loss"], row["eval"]["loss"]] for row in history]
    for layout in ("data", "fsdp"):
        np.testing.assert_allclose(results[0][layout], wanted, atol=1e-6)
        assert results[0][f"{layout} resumed"] == 2
