"""The example, run small: on its own corpus, split files and BRAT, and resumed."""

import runpy
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).parents[2] / "examples" / "clinical_ner.py"


@pytest.fixture(scope="module")
def main():
    return runpy.run_path(str(EXAMPLE))["main"]


@pytest.fixture
def run(main, tiny_folder, tmp_path):
    """Return a function that runs the example on given data with the tiny model."""

    def run(*arguments: str):
        common = ["--model", str(tiny_folder), "--output", str(tmp_path / "out")]
        return main([*common, "--max-length", "64", "--batch-size", "8", *arguments])

    return run


@pytest.fixture
def columns(tmp_path, corpus):
    """A file in CoNLL columns with 24 sentences."""
    path = tmp_path / "corpus.tsv"
    source = Path(EXAMPLE.parent / "data" / "synthetic_clinical" / "train.tsv").read_text()
    path.write_text("\n\n".join(source.split("\n\n")[:24]) + "\n")
    return path


def test_it_writes_what_it_says_and_resumes(run, columns, tmp_path, capsys):
    first = run("--data", str(columns), "--epochs", "1")
    made = {path.name for path in (tmp_path / "out").iterdir()}
    assert made == {
        "checkpoints",
        "metrics.csv",
        "metrics.jsonl",
        "learning_curves.png",
        "report.txt",
    }
    printed = capsys.readouterr().out
    for expected in ("19 / 2 / 3 sentences", "f1-score", "spurious", "Three sentences", "stent"):
        assert expected in printed
    resumed = run("--data", str(columns), "--epochs", "2", "--resume")
    assert resumed.history[0] == first.history[0]
    assert len(resumed.history) == 2
    assert len((tmp_path / "out" / "metrics.csv").read_text().splitlines()) == 3


def test_it_reads_brat(run, tmp_path):
    folder = tmp_path / "brat"
    folder.mkdir()
    for number in range(12):
        (folder / f"{number}.txt").write_text("No chest pain. He takes aspirin.\n")
        (folder / f"{number}.ann").write_text(
            "T1\tProblem 3 13\tchest pain\nT2\tTreatment 24 31\taspirin\n"
        )
    result = run("--data", str(folder), "--epochs", "1", "--scheme", "bilou")
    assert result.best_checkpoint is not None


def test_wrong_data_is_explained(run, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="0 files or folders named train; expected one"):
        run("--data", str(tmp_path / "empty"))
