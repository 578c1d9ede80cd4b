"""The example document_classification.py with a tiny model, for one class and for several."""

import csv
import runpy
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"
LETTERS = EXAMPLES / "data" / "synthetic_letters"


@pytest.fixture(scope="module")
def main():
    return runpy.run_path(str(EXAMPLES / "document_classification.py"))["main"]


@pytest.fixture(scope="module")
def letters(tmp_path_factory):
    """Forty letters in one file."""
    file = tmp_path_factory.mktemp("letters") / "letters.csv"
    with (LETTERS / "train.csv").open(encoding="utf-8", newline="") as source:
        rows = [*csv.reader(source)][:41]
    with file.open("w", encoding="utf-8", newline="") as target:
        csv.writer(target).writerows(rows)
    return file


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        pytest.param(
            ["--pooling", "max"],
            ["Confusion, true by row", "rheumatology", "by text"],
            marks=pytest.mark.slow,
        ),
        (
            ["--label", "topics", "--separator", ";", "--group", "patient"],
            ["Thresholds:", "by group"],
        ),
    ],
)
def test_it_writes_its_files_and_resumes(
    main, letters, tiny_folder, tmp_path, capsys, arguments, told
):
    common = ["--data", str(letters), "--model", str(tiny_folder), "--output", str(tmp_path)]
    common += ["--max-length", "48", "--batch-size", "16", *arguments]

    def run(epochs, *more):
        return main([*common, "--epochs", str(epochs), *more])

    first = run(1)
    files = {path.name for path in tmp_path.iterdir()}
    assert files == {
        "calibration.png",
        "checkpoints",
        "learning_curves.png",
        "metrics.csv",
        "metrics.jsonl",
        "model",
        "report.html",
        "report.txt",
        "split.json",
    }
    report = (tmp_path / "report.txt").read_text()
    assert report in capsys.readouterr().out + "\n"
    for expected in ("95 % intervals", "f1-score", "calibration-error", *told):
        assert expected in report
    resumed = run(2, "--resume")
    assert repr(resumed.history[0]) == repr(first.history[0])  # a NaN differs from itself


def test_a_class_that_only_test_has_is_refused_before_training(
    main, letters, tiny_folder, tmp_path
):
    test = tmp_path / "test.csv"
    test.write_text("text,specialty\nNo fever.,geology\n")
    arguments = ["--data", str(letters), str(test), "--model", str(tiny_folder)]
    arguments += ["--max-length", "48"]
    with pytest.raises(ValueError, match=r"test cannot be reported on: .* label 'geology'"):
        main([*arguments, "--output", str(tmp_path / "out")])
    assert not (tmp_path / "out").exists()


def test_the_script_writes_the_letters():
    module = runpy.run_path(str(EXAMPLES / "data" / "make_synthetic_letters.py"))
    written = {file.name: file.read_text(encoding="utf-8") for file in LETTERS.glob("*.csv")}
    assert module["corpus"]() == written


def test_letters_of_a_patient_are_in_one_part():
    patients = []
    for file in LETTERS.glob("*.csv"):
        with file.open(encoding="utf-8", newline="") as source:
            patients.append({row["patient"] for row in csv.DictReader(source)})
    assert len(patients) == 3
    assert sum(map(len, patients)) == len(set.union(*patients))
