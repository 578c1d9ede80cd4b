"""The README: its commands are those that CI runs, and its example works."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)


def test_quick_start_has_two_blocks_and_ci_runs_the_second():
    main_job, tests = blocks("sh")
    assert "examples/clinical_ner.py" in main_job
    command = tests.strip().splitlines()[-1]
    assert command in (ROOT / ".ci" / "run").read_text(encoding="utf-8").splitlines()


def test_it_is_short():
    assert len(README.splitlines()) <= 120


def test_the_functional_example_runs(tmp_path, monkeypatch, capsys):
    (example,) = blocks("python")
    monkeypatch.chdir(tmp_path)
    exec(compile(example, "README.md", "exec"), {})
    assert "'eval': {'loss': " in capsys.readouterr().out


@pytest.mark.parametrize(
    "room", re.findall(r"`((?:medjax|examples|benchmarks|tests)/[^`*]*)`", README + CONTRIBUTING)
)
def test_every_room_it_names_is_there(room):
    assert (ROOT / room).exists()
