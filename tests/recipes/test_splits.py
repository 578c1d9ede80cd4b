"""What the parts of a run consist of is kept, and a resumed run with others is refused."""

import json
import re

import numpy as np
import pytest

from medjax.checkpoint import CheckpointError, CheckpointStore
from medjax.recipes import (
    Parts,
    keep_split,
    redo_split,
    refuse_trained_texts,
    run_of,
    split_parts,
)
from medjax.text import Document, Entity, LabelledText

TEXTS = [LabelledText(f"letter {n}", ("a",), f"line {n}") for n in range(20)]
PARTS = split_parts([TEXTS], seed=0)


def save_checkpoint(folder):
    """Save as a run does."""
    with CheckpointStore(folder / "checkpoints", "run", keep_all=True) as store:
        state, path = {"kernel": np.ones(2, np.float32)}, store.new_path(epoch=1)
        store.save(path, state, {"epoch": 2}, metric=0.5, config={}, write_files=lambda _: None)
        store.wait()


@pytest.fixture
def begun(tmp_path):
    """The folder of a run with a checkpoint."""
    keep_split(PARTS, 0, tmp_path, resume=True)  # there is nothing to resume yet
    save_checkpoint(tmp_path)
    return tmp_path


def test_the_file_describes_the_parts(begun):
    (record,) = json.loads((begun / "split.json").read_text())
    assert record["seed"] == 0
    assert {name: part["items"] for name, part in record["parts"].items()} == {
        "train": 16,
        "devel": 2,
        "test": 2,
    }
    assert all(re.fullmatch("[0-9a-f]{64}", part["sha256"]) for part in record["parts"].values())
    assert "letter" not in (begun / "split.json").read_text()  # the texts are the patients'


def test_the_same_items_are_resumed_wherever_they_are(begun):
    before = (begun / "split.json").read_text()
    moved = Parts._make([item._replace(name="elsewhere") for item in part] for part in PARTS)
    keep_split(moved, 0, begun, resume=True)
    assert (begun / "split.json").read_text() == before


@pytest.mark.parametrize(
    ("parts", "seed", "told"),
    [
        (split_parts([TEXTS], seed=1), 1, "found 16 / 2 / 2 .* with seed 1, expected the 16 / 2 /"),
        (split_parts([[*TEXTS, TEXTS[0]]], seed=0), 0, "found 16 / 2 / 3 items .* differ"),
        (PARTS._replace(test=[PARTS.test[0], TEXTS[0]]), 0, r"\(test differ\)"),
    ],
)
def test_other_parts_are_refused(begun, parts, seed, told):
    with pytest.raises(ValueError, match=told):
        keep_split(parts, seed, begun, resume=True)
    keep_split(PARTS, 0, begun, resume=True)


def test_annotation_may_be_corrected(tmp_path):
    documents = [Document("No fever", (Entity("Sign", 3, 8),))]
    parts = Parts(documents, documents, documents)
    keep_split(parts, 0, tmp_path, resume=False)
    save_checkpoint(tmp_path)
    keep_split(parts._replace(devel=[Document("No fever")]), 0, tmp_path, resume=True)
    with pytest.raises(ValueError, match=r"\(devel differ\)"):
        keep_split(parts._replace(devel=[Document("No cough")]), 0, tmp_path, resume=True)


def test_a_new_run_takes_the_place_once_it_has_a_checkpoint(begun):
    other = split_parts([TEXTS], seed=1)
    keep_split(other, 1, begun, resume=False)  # and ends before it saves one
    with pytest.raises(ValueError, match=r"found .* seed 1, expected .* seed 0"):
        keep_split(other, 1, begun, resume=True)
    keep_split(PARTS, 0, begun, resume=True)
    save_checkpoint(begun)  # of the run that was resumed
    with pytest.raises(ValueError, match=r"expected .* seed 0"):
        keep_split(other, 1, begun, resume=True)
    keep_split(other, 1, begun, resume=False)
    save_checkpoint(begun)
    keep_split(other, 1, begun, resume=True)
    with pytest.raises(ValueError, match=r"expected .* seed 1"):
        keep_split(PARTS, 0, begun, resume=True)


def test_a_folder_of_an_older_version_goes_on_with_a_warning(begun, caplog):
    (begun / "split.json").unlink()
    keep_split(PARTS, 0, begun, resume=True)
    assert "has no split.json of the run that is resumed" in caplog.text
    save_checkpoint(begun)
    with pytest.raises(ValueError, match=r"found .* seed 1"):
        keep_split(split_parts([TEXTS], seed=1), 1, begun, resume=True)


@pytest.mark.parametrize("content", ["{", "[1]", '[{"after": null, "seed": 0, "parts": {}}]', "3"])
def test_a_damaged_file_is_refused(begun, content):
    (begun / "split.json").write_text(content)
    with pytest.raises(ValueError, match=r"split.json is damaged .*; remove it to resume"):
        keep_split(PARTS, 0, begun, resume=True)


def test_the_parts_of_a_run_that_goes_on_stay(begun):
    before = (begun / "split.json").read_text()
    with (
        CheckpointStore(begun / "checkpoints", "run"),
        pytest.raises(CheckpointError, match="is in use by another run"),
    ):
        keep_split(split_parts([TEXTS], seed=1), 1, begun, resume=False)
    assert (begun / "split.json").read_text() == before


def test_a_corpus_that_was_trained_on_is_recognised_in_any_order(begun):
    assert run_of(begun / "checkpoints") == begun
    with pytest.raises(ValueError, match=r"letters.csv is the corpus .* on 16 of 20 texts; expec"):
        refuse_trained_texts("letters.csv", TEXTS[::-1], begun)
    assert redo_split("letters.csv", TEXTS, begun, "test") == PARTS.test
    assert redo_split("letters.csv", TEXTS, begun, "dev") == PARTS.devel
    with pytest.raises(ValueError, match=r"--split is 'test', but other\.csv has no such part"):
        redo_split("other.csv", TEXTS[1:], begun, "test")


def test_files_that_were_trained_on_are_told(begun, caplog):
    for other in (PARTS.test, TEXTS[:16], [*TEXTS, TEXTS[0]]):
        refuse_trained_texts("test.csv", other, begun)
    assert not caplog.records
    refuse_trained_texts("train.csv", PARTS.train, begun)
    assert "train.csv has the texts that the model was trained on (train of" in caplog.text
    refuse_trained_texts("both.csv", [*PARTS.devel, *PARTS.train], begun)
    assert "both.csv has the texts that the model was trained on (train, devel of" in caplog.text


def test_a_run_of_an_earlier_version_is_recognised_by_its_split(begun):
    (record,) = json.loads((begun / "split.json").read_text())
    del record["texts"]
    (begun / "split.json").write_text(json.dumps([record]))
    with pytest.raises(ValueError, match="is the corpus of the run"):
        refuse_trained_texts("letters.csv", TEXTS, begun)
    refuse_trained_texts("letters.csv", TEXTS[1:], begun)
    assert run_of(begun / "nothing") is None
