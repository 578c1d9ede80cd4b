"""Compiling in another thread."""

import threading
import time

import pytest

from medjax.runtime import compile_aside, is_compiling_aside


class Lowered:
    """A program that takes until `end` is set to compile."""

    def __init__(self, error=None):
        self.end, self.error = threading.Event(), error

    def compile(self):
        assert self.end.wait(60)
        if self.error is not None:
            raise self.error


@pytest.mark.parametrize("error", [None, RuntimeError("no program")])
def test_whether_something_is_compiled_is_known_until_it_is_done(error):
    assert not is_compiling_aside()
    programs = [Lowered(error), Lowered(error)]
    compiled = [compile_aside(program) for program in programs]
    for program in programs:
        assert is_compiling_aside()
        program.end.set()
    assert [each.exception(60) for each in compiled] == [error, error]
    limit = time.monotonic() + 60
    while is_compiling_aside() and time.monotonic() < limit:
        time.sleep(0.01)
    assert not is_compiling_aside()
