"""Label Studio: the annotation that is taken, directions, labels, offsets, malformed tasks."""

import json
import re

import pytest

from medjax.text import Document, Entity, Relation
from medjax.text.readers import read_documents, read_label_studio

TEXT = "No fever after aspirin"


def span(name, start, end, *labels, text=TEXT):
    value = {"start": start, "end": end, "text": text[start:end], "labels": list(labels)}
    return {"id": name, "from_name": "label", "to_name": "text", "type": "labels", "value": value}


def arrow(head, tail, *labels, **changes):
    return {"type": "relation", "from_id": head, "to_id": tail, "labels": list(labels), **changes}


FEVER, ASPIRIN = span("f", 3, 8, "Sign"), span("a", 15, 22, "Drug")


def task(*results, number=7, text=TEXT, **changes):
    annotations = [{"id": 1, "result": list(results)}]
    return {"id": number, "data": {"text": text}, "annotations": annotations, **changes}


@pytest.fixture
def read(write):
    def read(*tasks, **options):
        return read_label_studio(write("a.json", json.dumps(tasks)), **options)

    return read


def test_entities_and_relations_in_their_direction(read, caplog):
    relations = [
        arrow("a", "f", "Treats", direction="right"),
        arrow("a", "f", "After", direction="left"),
        arrow("a", "f", "With", direction="bi"),
        arrow("f", "a"),
    ]
    (document,) = read(task(ASPIRIN, *relations, FEVER))
    assert document == Document(
        TEXT,
        (Entity("Sign", 3, 8), Entity("Drug", 15, 22)),
        "a.json, task 7",
        (
            Relation("Treats", 1, 0),
            Relation("After", 0, 1),
            Relation("With", 1, 0),
            Relation("With", 0, 1),
            Relation("related", 0, 1),
        ),
    )
    assert "labels of relations without one, which are 'related': 1" in caplog.text


def test_one_annotation_of_a_task_is_taken(write, caplog):
    def annotation(label, **changes):
        return {"result": [span("f", 3, 8, label)], **changes}

    old, new = {"created_at": "2024-01-01T09:00Z"}, {"created_at": "2024-02-01T09:00Z"}
    cases = [
        [annotation("new", **new), annotation("old", **old)],
        [annotation("late"), annotation("last")],
        [annotation("truth", ground_truth=True, **old), annotation("new", **new)],
        [annotation("kept", **old), annotation("cancelled", was_cancelled=True, **new)],
        [annotation("cancelled", was_cancelled=True)],
        [],
    ]
    tasks = [task(number=n, annotations=annotations) for n, annotations in enumerate(cases)]
    path = write("a.json", json.dumps(tasks))
    documents = read_documents(path)
    labels = {document.name: document.entities[0].label for document in documents}
    assert [labels.get(f"a.json, task {n}") for n in range(6)] == [
        "new", "last", "truth", "kept", None, None,
    ]  # fmt: skip
    assert [message.replace(f" ({path})", "") for message in caplog.messages] == [
        "Label Studio: left out annotations of a task other than the one taken: 3; cancelled "
        "annotations: 2; tasks without an annotation: 2"
    ]


def test_several_labels_overlaps_and_other_results(read, caplog):
    both = span("f", 3, 8, "Sign", "Finding")
    results = [both, ASPIRIN, arrow("a", "f", "Treats"), span("x", 0, 2), {"type": "choices"}]
    (document,) = read(task(*results), overlapping=True)
    assert document.entities == (
        Entity("Finding", 3, 8), Entity("Sign", 3, 8), Entity("Drug", 15, 22),
    )  # fmt: skip
    assert set(document.relations) == {Relation("Treats", 2, 0), Relation("Treats", 2, 1)}
    assert "results without a label: 1" in caplog.text
    assert "results of the type choices: 1" in caplog.text
    (document,) = read(task(*results))
    assert document.entities == (Entity("Sign", 3, 8), Entity("Drug", 15, 22))
    assert document.relations == (Relation("Treats", 1, 0),)
    assert "entities overlapping a longer one: 1" in caplog.text
    assert "relations of entities that were left out: 1" in caplog.text


def test_offsets_in_utf_16_code_units_are_recognised_by_the_text(read, caplog):
    text = "🙂🙂 toux"
    result = {"id": "t", "type": "labels"}
    value = {"start": 5, "end": 9, "text": "toux", "labels": ["Sign"]}
    (document,) = read(task({**result, "value": value}, text=text))
    assert document.entities == (Entity("Sign", 3, 7),)
    assert "the offsets count UTF-16 code units in some files: 1" in caplog.text
    del value["text"]
    with pytest.raises(ValueError, match=r"result t: found no text of the annotation, expected it"):
        read(task({**result, "value": value}, text=text))
    (document,) = read(task({**result, "value": value}, text="plain toux"))
    assert document.entities == (Entity("Sign", 5, 9),)


TITLE = "Rash, no fever"


def about(name, start, end, *labels, to_name, text=TITLE, **changes):
    return {**span(name, start, end, *labels, text=text), "to_name": to_name, **changes}


def with_title(*results, title=TITLE, **changes):
    return task(*results, data={"text": TEXT, "title": title}, **changes)


RASH = about("r", 0, 4, "Sign", to_name="title")


@pytest.mark.parametrize(
    ("results", "name"),
    [
        ([FEVER, RASH], "title"),
        ([FEVER, about("r", 0, 4, "Sign", to_name="heading")], "heading"),
        ([{**FEVER, "to_name": "body"}, {**RASH, "to_name": "heading"}], "heading"),
        ([{**FEVER, "to_name": "title"}, {**RASH, "to_name": "text"}], "text"),
        ([FEVER, {**RASH, "value": {"start": "/p[1]", "labels": ["a"]}}], "title"),
        (
            [
                {**FEVER, "to_name": "a", "source": "$text"},
                {**FEVER, "id": "g", "to_name": "b", "source": "$title"},
            ],
            "b",
        ),
    ],
    ids=["by name", "by text", "both by text", "names exchanged", "of HTML", "by source"],
)
def test_results_about_another_field_are_left_out_and_counted(read, caplog, results, name):
    (document,) = read(with_title(*results))
    assert document.entities == (Entity("Sign", 3, 8),)
    assert (
        f"left out results with {name!r} as 'to_name', which is another field than the one read: 1"
        in caplog.text
    )


def test_the_name_tells_the_field_where_two_have_one_text(read, caplog):
    (document,) = read(with_title(FEVER, {**ASPIRIN, "to_name": "title"}, title=TEXT))
    assert document.entities == (Entity("Sign", 3, 8),)
    (document,) = read(with_title({**FEVER, "to_name": "title"}, title=TEXT))
    assert document.entities == ()
    (document,) = read(with_title({**FEVER, "to_name": "title"}, title=TEXT), text="title")
    assert document.entities == (Entity("Sign", 3, 8),)


def test_the_field_of_a_name_is_told_by_all_tasks(read, caplog):
    body, heading = {**FEVER, "to_name": "body"}, {**RASH, "to_name": "heading"}
    first, second = read(with_title(body, heading), with_title({**heading, "id": "h"}, number=8))
    assert (first.entities, second.entities) == ((Entity("Sign", 3, 8),), ())
    assert "another field than the one read: 2" in caplog.text


def test_relations_of_results_about_another_field_are_left_out_and_counted(read, caplog):
    (document,) = read(with_title(FEVER, ASPIRIN, RASH, arrow("a", "r", "x"), arrow("a", "f", "y")))
    assert document.relations == (Relation("y", 1, 0),)
    assert "relations of entities that were left out: 1" in caplog.text


def test_results_with_one_name_are_of_the_text_whatever_the_name(read, caplog):
    for changes in ({"to_name": "note"}, {"to_name": None}, {"to_name": "note", "source": "$text"}):
        (document,) = read(task({**FEVER, **changes}))
        assert document.entities == (Entity("Sign", 3, 8),)
    assert not caplog.records


def test_results_of_which_nothing_tells_the_field_are_refused(read):
    names = ({**FEVER, "to_name": "a"}, {**ASPIRIN, "to_name": "b"})
    told = "found results with 'a' and 'b' as 'to_name', expected to tell by their names or texts"
    with pytest.raises(ValueError, match=rf"a\.json: {told} which are about 'text'; remove"):
        read(with_title(*names, title=TEXT))
    moved = {**FEVER, "to_name": "note", "value": {**FEVER["value"], "start": 1, "end": 6}}
    with pytest.raises(ValueError, match=r"found the text 'fever', expected 'o fev'"):
        read(task(moved))


@pytest.mark.parametrize(
    ("record", "message"),
    [
        (
            {"id": 1, "text": TEXT, "label": [{"labels": ["a"]}]},
            "'annotations' in it; export as \"",
        ),
        (
            task(data={"note": "x"}),
            "task 7: found nothing among ['note'] as 'text', expected a str",
        ),
        (task(annotations=[{}]), "task 7: found nothing among [] as 'result', expected a list"),
        (task({"id": "a"}), "task 7: found nothing among ['id'] as 'type', expected a string"),
        (task({**FEVER, "value": 3}), "task 7: found 3 as 'value', expected an object"),
        (task(span("f", 3, 8, 4)), "task 7: found [4] as labels, expected strings"),
        (task(span("f", 3, 8, "a", text="x" * 9)), "found the text 'xxxxx', expected 'fever', at"),
        (
            task(span("f", -3, 8, "a")),
            "result f: found [(-3, 8)] as start and end, expected no num",
        ),
        (task(FEVER, arrow("f", "b")), "task 7: found a relation of 'b', expected the id of one"),
        (task(FEVER, arrow("f", "f", direction="up")), "found the direction 'up', expected one of"),
        ("[{]", ":1: found invalid JSON"),
    ],
)
def test_the_error_names_a_malformed_task(write, record, message):
    path = write("a.json", record if isinstance(record, str) else json.dumps([record]))
    with pytest.raises(ValueError, match=re.escape(str(path)) + ".*" + re.escape(message)):
        read_label_studio(path)
