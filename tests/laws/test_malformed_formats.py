"""Malformed files in the formats of annotation tools: read within their text, or a ValueError."""

import json

import pytest
from malformed import FUZZED, attempts, damaged, json_files

from medjax.audio import read_rttm
from medjax.text.readers import (
    read_bioc,
    read_dataset,
    read_doccano,
    read_label_studio,
    read_pubtator,
)

TEXT = "Fever and a rash"
DOCCANO = {
    "text": TEXT,
    "entities": [
        {"id": 1, "start_offset": 0, "end_offset": 5, "label": "Sign"},
        {"id": 2, "start_offset": 10, "end_offset": 16, "label": "Sign"},
    ],
    "relations": [{"id": 3, "from_id": 1, "to_id": 2, "type": "With"}],
}
VALUE = {"start": 0, "end": 5, "text": "Fever", "labels": ["Sign", "Symptom"]}
LABEL_STUDIO = {
    "id": 1,
    "data": {"text": TEXT},
    "annotations": [
        {
            "result": [
                {"id": "a", "type": "labels", "value": VALUE},
                {"type": "relation", "from_id": "a", "to_id": "a", "direction": "bi"},
            ],
            "was_cancelled": False,
            "created_at": "2024-01-01",
        }
    ],
}
BIOC = {
    "documents": [
        {
            "id": "1",
            "passages": [
                {
                    "offset": 3,
                    "text": TEXT,
                    "annotations": [
                        {
                            "id": "a",
                            "infons": {"type": "Sign", "MESH": "D1"},
                            "text": "Fever",
                            "locations": [{"offset": 3, "length": 5}],
                        }
                    ],
                }
            ],
            "relations": [{"infons": {}, "nodes": [{"refid": "a"}, {"refid": "a"}]}],
        }
    ]
}
ROW = {"text": TEXT, "entities": [{"start": 0, "end": 5, "label": "Sign", "text": "Fever"}]}
JSON = {
    "doccano": (DOCCANO, read_doccano),
    "label_studio": (LABEL_STUDIO, read_label_studio),
    "bioc": (BIOC, read_bioc),
    "dataset": (ROW, lambda path, **options: read_dataset(path, entities="entities", **options)),
    "tokens": ({"tokens": ["No", "rash"], "ner_tags": ["O", "B-Sign"]}, read_dataset),
}
XML = (
    "<collection><document><id>1</id><passage><offset>0</offset><text>Fever</text>"
    '<annotation id="a"><infon key="type">Sign</infon><location offset="0" length="5"/>'
    "<text>Fever</text></annotation></passage></document></collection>"
)
LINES = {
    "pubtator": (
        "1|t|Fever and a rash\n1|a|Rash.\n1\t0\t5\tFever\tSign\tD1|D2\n1\tCID\tD1\tD2\n",
        read_pubtator,
    ),
    "bioc": (XML, read_bioc),
}


def check(documents):
    for document in documents:
        order = [(entity.start, entity.end, entity.label) for entity in document.entities]
        assert order == sorted(order)
        assert all(0 <= start < end <= len(document.text) for start, end, _ in order)
        places = range(len(order))
        assert all(r.head in places and r.tail in places for r in document.relations)


@FUZZED
@pytest.mark.parametrize("name", JSON)
def test_json_of_tools(name, times, tmp_path):
    valid, reader = JSON[name]
    file = tmp_path / "a.json"

    def attempt(content):
        file.write_bytes(content)
        check(reader(file))
        check(reader(file, overlapping=True))

    file.write_text(json.dumps([valid]))
    check(reader(file))
    attempts(times, json_files([valid], lines=False), attempt, ValueError)


@FUZZED
@pytest.mark.parametrize("name", LINES)
def test_lines_and_xml(name, times, tmp_path):
    valid, reader = LINES[name]
    file = tmp_path / "a.txt"

    def attempt(content):
        file.write_bytes(content)
        check(reader(file))
        check(reader(file, overlapping=True))

    attempt(valid.encode())
    attempts(times, damaged(valid.encode()), attempt, ValueError)


@FUZZED
def test_turns(times, tmp_path):
    def attempt(content):
        (tmp_path / "a.rttm").write_bytes(content)
        assert all(0 <= turn.start < turn.end for turn in read_rttm(tmp_path))

    valid = b"SPEAKER a 1 0.5 2.25 <NA> <NA> nurse <NA> <NA>\n"
    attempts(times, damaged(valid), attempt, ValueError)
