"""Doccano: both kinds of export, overlaps, relations, malformed lines."""

import json
import re

import pytest

from medjax.text import Document, Entity, Relation
from medjax.text.readers import read_doccano, read_documents

TEXT = "No fever after aspirin"


def entity(number, start, end, label, **changes):
    return {"id": number, "start_offset": start, "end_offset": end, "label": label, **changes}


LINKED = {
    "id": 5,
    "text": TEXT,
    "entities": [entity(8, 15, 22, "Drug"), entity(4, 3, 8, "Sign"), entity(6, 3, 22, "Event")],
    "relations": [
        {"id": 1, "from_id": 8, "to_id": 4, "type": "Treats"},
        {"id": 2, "from_id": 6, "to_id": 4, "type": "Has"},
    ],
    "Comments": ["unsure"],
}


@pytest.mark.parametrize("name", ["label", "labels", "ner"])
def test_sequence_labelling(write, name):
    lines = [{"text": TEXT, name: [[15, 22, "Drug"], [3, 8, "Sign"]]}, {"text": "Ok", name: []}]
    path = write("a.jsonl", "\ufeff" + "\n\n".join(map(json.dumps, lines)))
    label = name if name == "ner" else None
    documents = read_doccano(path, label=label)
    assert documents == [
        Document(TEXT, (Entity("Sign", 3, 8), Entity("Drug", 15, 22)), "a.jsonl:1"),
        Document("Ok", (), "a.jsonl:3"),
    ]
    if label is None:
        assert read_documents(path) == documents


def test_relations_and_overlaps(write, caplog):
    path = write("a.json", json.dumps([LINKED]))
    (document,) = read_doccano(path, overlapping=True)
    assert document.name == "a.json, entry 1"
    assert document.entities == (
        Entity("Sign", 3, 8),
        Entity("Event", 3, 22),
        Entity("Drug", 15, 22),
    )
    assert document.relations == (Relation("Treats", 2, 0), Relation("Has", 1, 0))
    assert caplog.messages == [f"Doccano: left out comments: 1 ({path})"]
    (document,) = read_documents(path)
    assert document[1:] == ((Entity("Event", 3, 22),), "a.json, entry 1", ())
    assert caplog.messages[1].replace(f" ({path})", "") == (
        "Doccano: left out comments: 1; entities overlapping a longer one: 2; relations of "
        "entities that were left out: 2"
    )


def test_equal_entities_are_told_apart(write):
    twice = [entity(1, 3, 8, "Sign"), entity(2, 3, 8, "Sign")]
    relations = [{"from_id": 2, "to_id": 1, "type": "Same"}]
    record = {"text": TEXT, "entities": twice, "relations": relations}
    (document,) = read_doccano(write("a.jsonl", json.dumps(record)), overlapping=True)
    assert document.relations == (Relation("Same", 1, 0),)


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ("{", "1: found invalid JSON (Expecting property name"),
        ("", "1: found no text, expected a Doccano export"),
        ("3", "1: found 3, expected an object with a string as 'text'"),
        ({"label": []}, "1: found nothing among ['label'] as 'text', expected a string"),
        ({"text": "a"}, "1: found nothing among ['text'] as 'labels', expected a list"),
        ({"text": "a", "label": "x"}, "1: found 'x' as 'label', expected a list"),
        (
            {"text": "a", "label": ["x"]},
            "1: found the class 'x' in 'label', expected [START, END, ",
        ),
        (
            {"text": "a", "label": [[0, True, "x"]]},
            "1: found [0, True, 'x'], expected [START, END,",
        ),
        ({"text": "a", "label": [[0, 2, "x"]]}, "1: found 0 2, expected 0 <= START < END <= 1"),
        ({"text": "a", "label": [[-1, 1, "x"]]}, "1: found -1 1, expected 0 <= START < END <= 1"),
        ({**LINKED, "entities": [entity("8", 3, 8, "a")]}, "1: found '8' as 'id', expected an int"),
        ({**LINKED, "entities": [entity(True, 3, 8, "a")]}, "1: found True as 'id', expected an "),
        ({**LINKED, "entities": [entity(8, 3, 3, "a")]}, "1: found 3 3, expected 0 <= START < END"),
        (
            {**LINKED, "entities": LINKED["entities"] * 2},
            "1: found two entities of the id 8, expected one",
        ),
        (
            {**LINKED, "entities": LINKED["entities"][:1]},
            "1: found a relation of the entity 4, expected one of [8]; export the entities too",
        ),
        (
            {"documents": []},
            "found BioC JSON, expected a Doccano export; medjax.text.readers.read_",
        ),
    ],
)
def test_the_error_names_a_malformed_line(write, record, message):
    path = write("a.jsonl", record if isinstance(record, str) else json.dumps(record))
    with pytest.raises(ValueError, match=re.escape(f"{path}:") + ".*" + re.escape(message)):
        read_doccano(path)
