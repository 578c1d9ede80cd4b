"""Fixtures shared by the tests of the readers."""

import pytest


@pytest.fixture
def write(tmp_path):
    """Return a function that writes a file and creates the folders in its name."""

    def write(name, content):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return write
