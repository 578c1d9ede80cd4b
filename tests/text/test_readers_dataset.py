"""Entities from named columns: Parquet, JSON lines and Hugging Face's datasets."""

import json
import re
import sys

import pyarrow
import pytest
from pyarrow import parquet

from medjax.text import Document, Entity, LabelledText
from medjax.text.readers import (
    format_of,
    read_dataset,
    read_doccano,
    read_documents,
    read_texts,
)

NAMES = ["O", "B-Sign", "I-Sign", "B-Drug"]
ROWS = {"tokens": [["No", "high", "fever"], ["Aspirin"]], "ner_tags": [[0, 1, 2], [3]]}
SENTENCES = [("No high fever", (Entity("Sign", 3, 13),)), ("Aspirin", (Entity("Drug", 0, 7),))]
SPANS = [{"start": 0, "end": 4, "label": "Sign"}, {"start": 0, "end": 9, "label": "Event"}]


def lines(**columns):
    return "\n".join(
        json.dumps(dict(zip(columns, row, strict=True)))
        for row in zip(*columns.values(), strict=True)
    )


def write_parquet(path, columns, features=None):
    table = pyarrow.table(columns)
    if features is not None:
        about = json.dumps({"info": {"features": features}})
        table = table.replace_schema_metadata({"huggingface": about})
    parquet.write_table(table, path)
    return path


@pytest.mark.parametrize("kind", ["Sequence", "List", "list"])
def test_parquet_with_the_names_that_datasets_stores(tmp_path, kind):
    label = {"names": NAMES, "_type": "ClassLabel"}
    feature = [label] if kind == "list" else {"feature": label, "_type": kind}
    path = write_parquet(tmp_path / "a.parquet", ROWS, {"ner_tags": feature})
    documents = [
        Document(text, entities, f"a.parquet, row {number}")
        for number, (text, entities) in enumerate(SENTENCES, start=1)
    ]
    assert read_dataset(path) == read_documents(path) == documents
    assert format_of(path) == "dataset"


def test_tags_by_name_in_json_lines_and_another_joiner(write, caplog):
    tags = [[NAMES[tag] for tag in row] for row in ROWS["ner_tags"]] + [[]]
    path = write("a.jsonl", lines(tokens=ROWS["tokens"] + [[]], ner_tags=tags))
    assert [document[:2] for document in read_documents(path)] == SENTENCES
    assert f"left out rows without tokens: 1 ({path})" in caplog.text
    path = write("b.jsonl", lines(words=ROWS["tokens"], tags=ROWS["ner_tags"]))
    options = {"tokens": "words", "tags": "tags", "tag_names": NAMES, "joiner": "_"}
    first = read_dataset(path, **options)[0]
    assert (first.text, first.name) == ("No_high_fever", "b.jsonl:1")


@pytest.mark.parametrize("shape", ["lines", "list"])
def test_rows_of_texts_and_entities_are_recognised(write, shape, caplog):
    rows = [{"text": "No", "entities": []}, {"text": "Rash here", "entities": SPANS[:1]}]
    text = json.dumps(rows) if shape == "list" else "\n".join(map(json.dumps, rows))
    path = write("a.jsonl", text)
    assert format_of(path) == "dataset"
    expected = [("No", ()), ("Rash here", (Entity("Sign", 0, 4),))]
    for documents in (read_documents(path), read_documents(path, format="dataset")):
        assert [document[:2] for document in documents] == expected
    assert not caplog.records
    with pytest.raises(ValueError, match=r'expected a Doc.*read_dataset\(file, entities="ent'):
        read_doccano(path)


def test_rows_of_texts_and_entities_in_a_parquet_table(tmp_path):
    columns = {"text": ["Rash here"], "entities": [SPANS[:1]]}
    (document,) = read_documents(write_parquet(tmp_path / "a.parquet", columns))
    assert document[:2] == ("Rash here", (Entity("Sign", 0, 4),))


def test_relations_in_rows_of_texts_and_entities_are_counted(write, caplog):
    row = {"text": "Rash here", "entities": SPANS, "relations": [{"head": 0}, {"head": 1}]}
    path = write("a.jsonl", json.dumps(row))
    read_documents(path, overlapping=True)
    assert f"relations, which read_dataset does not read: 2 ({path})" in caplog.text


def test_entities_with_the_fields_of_doccano_are_its_own(write):
    entity = {"id": 1, "start_offset": 0, "end_offset": 4, "label": "Sign"}
    rows = [{"text": "No", "entities": []}, {"text": "Rash here", "entities": [entity]}]
    assert format_of(write("a.jsonl", "\n".join(map(json.dumps, rows)))) == "doccano"


@pytest.mark.parametrize(
    "cell",
    [
        SPANS,
        [[0, 4, "Sign"], [0, 9, "Event"]],
        {"start": [0, 0], "end": [4, 9], "label": ["Sign", "Event"]},
        [{**SPANS[0], "text": "Rash"}, SPANS[1]],
    ],
    ids=["objects", "triples", "lists", "texts"],
)
def test_texts_with_entities(write, caplog, cell):
    path = write("a.jsonl", lines(text=["Rash here"], spans=[cell]))
    (document,) = read_dataset(path, entities="spans", overlapping=True)
    expected = (Entity("Sign", 0, 4), Entity("Event", 0, 9))
    assert document == Document("Rash here", expected, "a.jsonl:1")
    assert not caplog.records
    (document,) = read_dataset(path, entities="spans")
    assert document.entities == expected[1:]
    assert "entities overlapping a longer one: 1" in caplog.text


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (
            {"words": ["a"]},
            ":1: found the columns ['words'], expected 'tokens' among them; pass the",
        ),
        ({"tokens": "a", "ner_tags": []}, ":1: found 'a' as 'tokens', expected a list"),
        (
            {"tokens": ["a"], "ner_tags": []},
            ":1: found 1 'tokens' and 0 'ner_tags', expected a tag",
        ),
        ({"tokens": [""], "ner_tags": ["O"]}, ":1: found the token '', expected some text"),
        (
            {"tokens": ["a"], "ner_tags": [0]},
            ":1: found the number 0 in 'ner_tags', expected a name",
        ),
        ({"tokens": ["a"], "ner_tags": [None]}, ":1: found None in 'ner_tags', expected names or"),
        (
            {"tokens": ["a"], "ner_tags": ["B-"]},
            ":1: found 'B-' in 'ner_tags', expected O, or a pre",
        ),
        ([], ":1: found [], expected an object with named columns"),
    ],
)
def test_the_error_names_a_malformed_row_of_tags(write, row, message):
    path = write("a.jsonl", json.dumps(row) if row else '{"tokens": [], "ner_tags": []}\n[]')
    message = message if row else message.replace(":1", ":2")
    with pytest.raises(ValueError, match=re.escape(f"{path}{message}")):
        read_dataset(path)


@pytest.mark.parametrize(
    ("spans", "message"),
    [
        (3, "found 3, expected an object with an integer as 'start'"),
        ([[0, 5, "Sign"]], "found 0 5, expected 0 <= START < END <= 4, the length of the text"),
        (
            [{"start": 0, "end": 4}],
            "found nothing among ['start', 'end'] as 'label', expected a str",
        ),
        ({"start": [0], "end": [], "label": []}, "found [0] as 'start', expected an integer"),
        (
            [{**SPANS[0], "text": "Rush"}],
            "found the text 'Rush', expected 'Rash', at its offsets 0 4",
        ),
    ],
)
def test_the_error_names_malformed_entities(write, spans, message):
    path = write("a.jsonl", lines(text=["Rash"], spans=[spans]))
    with pytest.raises(ValueError, match=re.escape(f"{path}:1: {message}")):
        read_dataset(path, entities="spans")


def test_rows_of_prodigy_that_were_not_accepted_are_refused(write):
    rows = {"text": ["Rash"] * 2, "spans": [SPANS[:1]] * 2}
    path = write("a.jsonl", lines(**rows, answer=["accept", "reject"]))
    with pytest.raises(ValueError, match=r"a\.jsonl:2: the answer is 'reject'"):
        read_dataset(path, entities="spans")
    path = write("b.jsonl", lines(**rows, answer=["accept"] * 2))
    assert len(read_dataset(path, entities="spans")) == 2


def test_numbers_without_a_name_and_other_sources_are_refused(tmp_path, write):
    label = {"names": NAMES, "_type": "ClassLabel"}
    columns = {"tokens": [["No"]], "ner_tags": [[-1]]}
    features = {"ner_tags": {"feature": label}}
    path = write_parquet(tmp_path / "a.parquet", columns, features)
    with pytest.raises(
        ValueError, match=r"row 1: found the number -1 in 'ner_tags', expected 0 to 3"
    ):
        read_dataset(path)
    with pytest.raises(ValueError, match=r"a\.parquet: found a file, expected a folder of splits"):
        read_dataset(path, split="train")
    with pytest.raises(ValueError, match=r"found the ending '\.md', expected \.parquet, \.jsonl"):
        read_dataset(write("a.md", ""))
    with pytest.raises(ValueError, match=r"found neither dataset_dict\.json nor state\.json"):
        read_dataset(tmp_path)
    with pytest.raises(ValueError, match="list: found no columns, expected a path, a datasets"):
        read_dataset([])
    empty = write_parquet(tmp_path / "b.parquet", {"tokens": [], "ner_tags": []})
    with pytest.raises(ValueError, match=r"b\.parquet: found no rows, expected documents"):
        read_dataset(empty)


def test_numbers_of_classes_with_names_are_read_as_labels(tmp_path):
    columns = {"text": ["Rash", "Cough"], "label": [1, 0]}
    features = {"label": {"names": ["lung", "skin"], "_type": "ClassLabel"}}
    path = write_parquet(tmp_path / "a.parquet", columns, features)
    assert [text.labels for text in read_texts(path)] == [("skin",), ("lung",)]
    path = write_parquet(tmp_path / "b.parquet", columns)
    assert [text.labels for text in read_texts(path)] == [("1",), ("0",)]
    columns["label"] = [[0, 1], []]
    path = write_parquet(tmp_path / "c.parquet", columns, {"label": {"feature": features["label"]}})
    assert [text.labels for text in read_texts(path)] == [("lung", "skin"), ()]


def test_datasets_themselves_and_their_folders(tmp_path):
    datasets = pytest.importorskip("datasets")
    tags = datasets.ClassLabel(names=NAMES)
    # List is what datasets 4 and later call a sequence.
    sequence = getattr(datasets, "List", datasets.Sequence)
    features = datasets.Features(tokens=sequence(datasets.Value("string")), ner_tags=sequence(tags))
    train = datasets.Dataset.from_dict(ROWS, features=features)
    splits = datasets.DatasetDict(train=train, test=train.select([1]))
    splits.save_to_disk(tmp_path / "splits")
    train.save_to_disk(tmp_path / "one")
    train.to_parquet(tmp_path / "a.parquet")
    for source in (train, tmp_path / "one", tmp_path / "a.parquet"):
        assert [document[:2] for document in read_dataset(source)] == SENTENCES
    assert [document[:2] for document in read_documents(tmp_path / "one")] == SENTENCES
    for source in (splits, tmp_path / "splits"):
        assert [document[:2] for document in read_dataset(source, split="test")] == SENTENCES[1:]
        with pytest.raises(
            ValueError, match=r"found the splits \['train', 'test'\], expected one of"
        ):
            read_dataset(source)
    with pytest.raises(
        ValueError, match="found a dataset without splits, expected some for split="
    ):
        read_dataset(train, split="train")
    labelled = datasets.Dataset.from_dict(
        {"text": ["Rash"], "label": [1]},
        features=datasets.Features(
            text=datasets.Value("string"), label=datasets.ClassLabel(names=["lung", "skin"])
        ),
    )
    assert read_texts(labelled) == [LabelledText("Rash", ("skin",), "Dataset, row 1")]


def test_the_error_says_what_to_install(tmp_path, write, monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    write("one/state.json", "{}")
    with pytest.raises(ImportError, match=r'not installed; pip install "medjax\[datasets\]"'):
        read_dataset(tmp_path / "one")


def test_labels_that_end_like_a_prefix_are_kept_and_told(write, caplog):
    path = write("x.jsonl", '{"tokens": ["No", "virus"], "ner_tags": ["O", "Hepatitis_B"]}\n')
    (document,) = read_dataset(path)
    assert document.entities == (Entity("Hepatitis_B", 3, 8),)
    assert "the tag 'Hepatitis_B' is read as the label 'Hepatitis_B', but could be" in caplog.text
