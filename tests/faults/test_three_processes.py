"""One of three processes is killed: the message names that one and no survivor."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

import medjax

HERE = Path(__file__).parent


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
def test_the_killed_process_is_named(tmp_path):
    with socket.create_server(("localhost", 0)) as free:
        address = f"localhost:{free.getsockname()[1]}"
    environment = os.environ | {
        "PYTHONPATH": str(Path(medjax.__file__).parents[1]),
        "JAX_PLATFORMS": "cpu",
    }
    files = [(tmp_path / f"{number}.txt").open("w") for number in range(3)]
    started = [
        subprocess.Popen(
            [sys.executable, str(HERE / "one_of_three.py"), address, str(number)],
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=errors,
        )
        for number, errors in enumerate(files)
    ]
    try:
        codes = [process.wait(120) for process in started]
    finally:
        for process, errors in zip(started, files, strict=True):
            process.kill()
            process.wait()
            errors.close()
    outputs = [(tmp_path / f"{number}.txt").read_text() for number in range(3)]
    assert codes[2] == -signal.SIGKILL
    assert 0 not in codes
    for survivor in outputs[:2]:
        assert "process 2 failed" in survivor, survivor
        assert "no sign of life" in survivor
        assert not re.search(r"process [01] (failed|had failed)", survivor), survivor
