"""Documents that are written and read again are the same, to the character."""

import csv
import json
from itertools import pairwise

import pytest
from generated_documents import ANY_LABELS, document, without_scores

from medjax.text import Entity
from medjax.text.readers import read_brat, read_medkit_json
from medjax.text.writers import write_brat, write_csv, write_doccano, write_medkit_json

COUNTS = pytest.mark.parametrize("count", [200, pytest.param(10_000, marks=pytest.mark.slow)])


def documents(count, labels=ANY_LABELS):
    """Return the documents of the first seeds, which have what makes writing hard."""
    drawn = [document(seed, labels) for seed in range(count)]
    covered = [each.text[e.start : e.end] for each in drawn for e in each.entities]
    assert all(any(char in text for text in covered) for char in "\n\r\t\u2028🙂\u0301")
    assert any(len(each.relations) > 1 for each in drawn)
    assert any(a.end > b.start for d in drawn for a, b in pairwise(d.entities))
    return drawn


@COUNTS
def test_brat(count, tmp_path, caplog):
    written = [document(seed) for seed in range(count)]
    assert write_brat(written, tmp_path) == count
    corpus = read_brat(tmp_path, overlapping=True)
    assert corpus.dropped == []
    assert not caplog.records
    by_name = {each.name: each for each in corpus.documents}
    assert len(by_name) == count
    for each in written:
        assert by_name[each.name] == without_scores(each)


@COUNTS
def test_brat_lines_are_those_of_any_reader(count, tmp_path):
    for each in documents(count, ("Drug",)):
        write_brat([each], tmp_path)
        content = (tmp_path / f"{each.name}.ann").read_bytes().decode()
        lines = content.split("\n")[:-1]
        assert content.splitlines() == lines
        assert len(lines) == len(each.entities) + len(each.relations)
        for line, entity in zip(lines, each.entities, strict=False):
            _, label_and_offsets, covered = line.split("\t")
            fragments = label_and_offsets.removeprefix("Drug ").split(";")
            places = [tuple(map(int, fragment.split())) for fragment in fragments]
            assert (places[0][0], places[-1][1]) == (entity.start, entity.end)
            found = " ".join(each.text[start:end] for start, end in places)
            assert len(covered) <= len(found)
            assert covered.split() == found.split() == each.text[entity.start : entity.end].split()


@COUNTS
def test_medkit_json(count, tmp_path, caplog):
    written = documents(count)
    path = tmp_path / "new" / "notes.jsonl"
    assert write_medkit_json(written, path) == count
    read = read_medkit_json(path, overlapping=True)
    assert not caplog.records
    assert [each._replace(name="") for each in read] == [w._replace(name="") for w in written]
    content = path.read_bytes()
    write_medkit_json(iter(written), path)
    assert path.read_bytes() == content
    records = [json.loads(line) for line in content.decode().split("\n")[1:-1]]
    assert [record["metadata"]["name"] for record in records] == [each.name for each in written]
    anns = [ann for record in records for ann in record["anns"]]
    uids = [each["uid"] for each in (*records, *anns, *(a for ann in anns for a in ann["attrs"]))]
    assert len(set(uids)) == len(uids)


@COUNTS
def test_doccano(count, tmp_path, caplog):
    written = documents(count)
    path = tmp_path / "notes.jsonl"
    assert write_doccano(written, path) == count
    nb_relations = sum(len(each.relations) for each in written)
    assert caplog.messages == [
        f"Doccano: left out relations: {nb_relations} ({path}); pass relations=True to write them"
    ]
    records = [json.loads(line) for line in path.read_bytes().decode().split("\n")[:-1]]
    for record, each in zip(records, written, strict=True):
        assert (record["text"], record["name"]) == (each.text, each.name)
        assert record["label"] == [[e.start, e.end, e.label] for e in each.entities]


@COUNTS
def test_doccano_with_relations(count, tmp_path, caplog):
    written = documents(count)
    path = tmp_path / "notes.jsonl"
    assert write_doccano(written, path, relations=True) == count
    assert not caplog.records
    records = [json.loads(line) for line in path.read_bytes().decode().split("\n")[:-1]]
    for record, each in zip(records, written, strict=True):
        assert record["text"] == each.text
        offsets = ("start_offset", "end_offset", "label")
        assert [[e[name] for name in offsets] for e in record["entities"]] == [
            [e.start, e.end, e.label] for e in each.entities
        ]
        places = {entity["id"]: place for place, entity in enumerate(record["entities"])}
        assert [
            (r["type"], places[r["from_id"]], places[r["to_id"]]) for r in record["relations"]
        ] == [each_relation[:3] for each_relation in each.relations]
    for kind in ("entities", "relations"):
        ids = [each["id"] for record in records for each in record[kind]]
        assert len(set(ids)) == len(ids)


@COUNTS
def test_csv(count, tmp_path, caplog):
    written = documents(count)
    path = tmp_path / "entities.csv"
    assert write_csv(written, path) == count
    nb_relations = sum(len(each.relations) for each in written)
    assert caplog.messages == [f"CSV: left out relations: {nb_relations} ({path})"]
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    expected = [(each, entity) for each in written for entity in each.entities]
    for row, (each, entity) in zip(rows, expected, strict=True):
        score = float(row["score"]) if row["score"] else None
        assert Entity(row["label"], int(row["start"]), int(row["end"]), score) == entity
        assert (row["document"], row["text"]) == (each.name, each.text[entity.start : entity.end])
