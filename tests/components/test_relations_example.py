"""The example relations.py with a tiny model, and its synthetic notes."""

import runpy
import shutil
from pathlib import Path

import pytest

from medjax.text import relation_kinds
from medjax.text.readers import read_brat

EXAMPLES = Path(__file__).parents[2] / "examples"
NOTES = EXAMPLES / "data" / "synthetic_relations"


@pytest.fixture(scope="module")
def example():
    return runpy.run_path(str(EXAMPLES / "relations.py"))


@pytest.fixture
def notes(tmp_path):
    """Ten notes in one folder."""
    folder = tmp_path / "notes"
    folder.mkdir()
    for file in NOTES.glob("train/note_00*"):
        shutil.copy(file, folder)
    shutil.copy(NOTES / "train" / "note_010.txt", folder)
    shutil.copy(NOTES / "train" / "note_010.ann", folder)
    return folder


def test_it_writes_its_files(example, notes, tiny_folder, tmp_path, capsys):
    output = tmp_path / "output"
    arguments = ["--data", str(notes), "--model", str(tiny_folder), "--output", str(output)]
    arguments += ["--epochs", "1", "--max-length", "48", "--reach", "20", "--context", "10"]
    result = example["main"]([*arguments, "--resume"])
    assert {path.name for path in output.iterdir()} == {
        "checkpoints",
        "learning_curves.png",
        "metrics.csv",
        "metrics.jsonl",
        "predictions",
        "report.txt",
        "split.json",
    }
    report = (output / "report.txt").read_text()
    assert report in capsys.readouterr().out + "\n"
    for expected in ("f1-score", "DoseOf", "are no candidates (too far apart: "):
        assert expected in report
    assert result.best_checkpoint is not None
    predicted = read_brat(output / "predictions", overlapping=True)
    assert len(predicted.documents) == 1
    assert not predicted.dropped


def test_relations_that_are_found_are_those_of_brat(example):
    document = read_brat(NOTES / "test", overlapping=True).documents[0]

    class Classifier:
        def predict(self, variables, documents, options):
            relation = document.relations[0]._replace(label="may cause", score=0.9)
            return [(relation,)]

    named = document._replace(
        entities=tuple(e._replace(label=f"a {e.label}") for e in document.entities)
    )
    (found,) = example["found_in"](Classifier(), None, None, [named])
    assert found.relations[0].label == "may_cause"
    assert found.entities[0].label == "a_Drug"
    assert found.relations[0][1:3] == document.relations[0][1:3]


@pytest.mark.parametrize(("nb_files", "sizes"), [(1, (8, 1, 1)), (2, (9, 1, 40))])
def test_what_is_missing_is_split_off(example, notes, nb_files, sizes):
    arguments = ["--data", str(notes), str(NOTES / "test")][: nb_files + 1]
    parts = example["load"](example["parse"](arguments))
    assert tuple(map(len, parts)) == sizes


def test_parts_without_relations_are_refused(example, notes):
    for file in notes.glob("*.ann"):
        file.write_text("")
    with pytest.raises(ValueError, match="no relation in the 8 documents of train; expected some"):
        example["load"](example["parse"](["--data", str(notes)]))
    folders = [notes.with_name(f"copy {number}") for number in range(4)]
    for folder in folders:
        shutil.copytree(notes, folder)
    too_many = example["parse"](["--data", *map(str, folders)])
    with pytest.raises(ValueError, match="--data got 4 files or folders; expected 1, 2 or 3"):
        example["load"](too_many)


def test_the_script_writes_the_notes():
    module = runpy.run_path(str(EXAMPLES / "data" / "make_synthetic_relations.py"))
    written = {
        file.relative_to(NOTES).as_posix(): file.read_text(encoding="utf-8")
        for file in NOTES.glob("*/note_*")
    }
    assert module["corpus"]() == written


def test_labels_of_entities_do_not_tell_their_relation():
    corpus = read_brat(NOTES, overlapping=True)
    assert corpus.dropped == []
    assert len(corpus.documents) == 150
    labels, kinds = relation_kinds(corpus.documents)
    assert labels == ["Causes", "DoseOf", "Relieves"]
    assert kinds == [("Dose", "Drug"), ("Drug", "Sign")]
