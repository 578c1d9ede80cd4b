from pathlib import Path

import pytest

from medjax.text import Entity, Relation
from medjax.text.readers import read_documents, read_medkit_json

FOLDER = Path(__file__).parent
FIRST = (Entity("Problem", 0, 14), Entity("Treatment", 28, 39))


def test_reads_the_documents_that_medkit_saved(caplog):
    first, second, third = read_documents(FOLDER / "medkit_documents.jsonl")
    assert first.name == "medkit_documents.jsonl:2"
    assert first.entities == FIRST
    assert first.text[28:39] == "paracétamol"
    assert second.entities == (Entity("Problem", 0, 22),)
    assert third.text == "Nothing to report."
    assert third.entities == ()
    (message,) = caplog.messages
    for left_out in (
        "segments: 1",
        "relations of entities that were left out: 1",
        "entities overlapping a longer one: 1",
        "entities with no original span: 1",
    ):
        assert f"{left_out} (" in message


@pytest.mark.parametrize(
    "paths", [["medkit_document.json"], ["medkit_split.json", "medkit_split_anns.jsonl"]]
)
def test_reads_a_single_document_that_medkit_saved(paths):
    (document,) = read_medkit_json(*(FOLDER / path for path in paths))
    assert document.entities == FIRST


def test_a_split_document_without_its_annotations_has_no_entities():
    (document,) = read_medkit_json(FOLDER / "medkit_split.json")
    assert document.entities == ()


def test_reads_overlapping_entities_and_the_relation_of_one_of_them():
    first, *_ = read_documents(FOLDER / "medkit_documents.jsonl", overlapping=True)
    assert first.entities == (Entity("Problem", 0, 6), *FIRST)
    assert first.relations == (Relation("treats", head=2, tail=0),)
