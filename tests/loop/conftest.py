"""The folder of a run that is refused."""

import pytest


@pytest.fixture
def out(tmp_path):
    """A folder that must not be there after a mistake."""
    yield tmp_path / "out"
    assert not any((tmp_path / "out").glob("*"))
