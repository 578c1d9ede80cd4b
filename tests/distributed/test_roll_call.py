"""How processes find each other, and which ones are named if they do not."""

from __future__ import annotations

import contextlib
import socket
import threading
import time

import pytest

import medjax
from medjax.distributed.initialize import _detect
from medjax.distributed.roll_call import answer, call_roll


def outcomes(port, calls, *, number, timeout):
    """Run a roll call in threads; return the exception of each process, or None for success."""
    outcome_of = {}

    def note(process, function, *arguments):
        try:
            outcome_of[process] = function(*arguments)
        except Exception as error:
            outcome_of[process] = error

    threads = [threading.Thread(target=note, args=(0, call_roll, port, number, timeout))]
    for key, own, of in calls:
        arguments = (key, answer, "localhost", port, of, own, timeout)
        threads.append(threading.Thread(target=note, args=arguments))
    for thread in reversed(threads):  # process 0 comes last; the others try again
        thread.start()
        time.sleep(0.05)
    for thread in threads:
        thread.join()
    return outcome_of


@pytest.fixture
def port():
    with socket.create_server(("localhost", 0)) as free:
        return free.getsockname()[1]


def test_all_processes_are_present(port):
    calls = [(own, own, 4) for own in (1, 2, 3)]
    assert outcomes(port, calls, number=4, timeout=20) == dict.fromkeys(range(4))
    assert outcomes(port, calls, number=4, timeout=20) == dict.fromkeys(range(4))  # restarted


def test_all_are_told_who_is_missing(port):
    errors = outcomes(port, [(2, 2, 5), (3, 3, 5)], number=5, timeout=0.6)
    assert set(errors) == {0, 2, 3}
    for error in errors.values():
        assert isinstance(error, TimeoutError)
        assert str(error).startswith("processes 1, 4 have not reported within 0.6 s (5 processes")


def test_process_0_is_missing(port):
    with pytest.raises(TimeoutError, match=rf"process 0 has not answered at localhost:{port}"):
        answer("localhost", port, 3, 1, 0.5)


def test_two_processes_with_the_same_index(port):
    errors = outcomes(port, [("a", 1, 3), ("b", 1, 3)], number=3, timeout=20)
    assert all("process 1 runs twice" in str(error) for error in errors.values())
    assert {type(error) for error in errors.values()} == {ValueError}


def test_different_numbers_of_processes(port):
    errors = outcomes(port, [(1, 1, 3)], number=2, timeout=20)
    assert "expects 3 processes, process 0 expects 2" in str(errors[0])
    assert str(errors[1]) == str(errors[0])


def test_other_programs_do_not_count(port):
    def knock():
        with contextlib.suppress(OSError), socket.create_connection(("localhost", port)) as other:
            other.sendall(b"GET / HTTP/1.1\r\n\r\n")

    timer = threading.Timer(0.2, knock)
    timer.start()
    errors = outcomes(port, [], number=2, timeout=1.0)
    timer.join()
    assert "process 1 has not reported" in str(errors[0])


def test_the_port_is_in_use(port):
    with (
        socket.create_server(("", port)),
        pytest.raises(ValueError, match=f"cannot listen on port {port}"),
    ):
        call_roll(port, 2, 0.3)


def test_slurm_is_detected(monkeypatch):
    slurm = {
        "SLURM_JOB_ID": "4097",
        "SLURM_STEP_NODELIST": "node[012-015]",
        "SLURM_NTASKS": "4",
        "SLURM_PROCID": "2",
        "SLURM_LOCALID": "0",
    }
    for name, value in slurm.items():
        monkeypatch.setenv(name, value)
    assert _detect(None, None, None) == ("node012:61441", 4, 2, [0])
    assert _detect("10.0.0.1:1234", 3, 1) == ("10.0.0.1:1234", 3, 1, None)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((None, None, None), "no TPU VM, SLURM step .* take coordinator_address, num_processes"),
        (("localhost:1", None, 0), "job to take num_processes from; pass"),
        (("localhost", 2, 0), "coordinator_address is 'localhost'; expected 'host:port'"),
        (("localhost:1", 2, 2), "process_id is 2 of num_processes 2; expected 0 to 1"),
    ],
)
def test_bad_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        medjax.initialize_distributed(*arguments)
