"""The code of the documentation: every block of Python runs, or says why it does not."""

import re
from pathlib import Path

import pytest
from page_files import write_page_files

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
NOT_RUN = "# Not run here: "
_BLOCK = re.compile(r"^```python\n(.*?)^```", re.DOTALL | re.MULTILINE)


def pages():
    """Return the pages that Sphinx does not execute; it executes the tutorials."""
    built = {DOCS / "_build", DOCS / "tutorials"}
    return sorted(page for page in DOCS.rglob("*.md") if not built & set(page.parents))


def blocks(page):
    """Return line and code of every block of Python in a page."""
    text = page.read_text(encoding="utf-8")
    return [(text[: m.start(1)].count("\n"), m.group(1)) for m in _BLOCK.finditer(text)]


SLOW = ("documents",)  # a minute; the example of documents has a test of its own


@pytest.mark.parametrize(
    "page",
    [
        pytest.param(page, marks=pytest.mark.slow if page.stem in SLOW else ())
        for page in pages()
        if blocks(page)
    ],
    ids=lambda page: page.stem,
)
def test_the_blocks_of_a_page_run_in_order(page, tmp_path, monkeypatch):
    write_page_files(tmp_path, ROOT / "examples")
    monkeypatch.chdir(tmp_path)
    namespace = {"__name__": "page"}
    for line, block in blocks(page):
        if not block.startswith(NOT_RUN):
            exec(compile("\n" * line + block, str(page), "exec"), namespace)


def test_a_block_that_is_not_run_gives_a_reason():
    for page in pages():
        for line, block in blocks(page):
            first = block.splitlines()[0]
            if first.startswith("# Not"):
                assert re.fullmatch(NOT_RUN + r".{10,}\.", first), f"{page}:{line}"


@pytest.mark.parametrize("page", pages(), ids=lambda page: page.stem)
def test_scripts_that_a_page_runs_are_there(page):
    named = re.findall(
        r"python (?:-m pytest )?((?:examples|benchmarks|tests)/[\w/]+\.py)", page.read_text()
    )
    assert [path for path in named if not (ROOT / path).is_file()] == []
