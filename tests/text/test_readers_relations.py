"""Relations and overlapping entities, from BRAT and medkit JSON."""

import json

import pytest

from medjax.text import Document, Entity, Relation
from medjax.text.readers import Dropped, read_brat, read_documents, read_medkit_json

TEXT = "Aspirin for pain of the left hand, then ibuprofen"
ASPIRIN, IBUPROFEN = Entity("Drug", 0, 7), Entity("Drug", 40, 49)
PAIN, PAIN_OF_HAND, HAND = Entity("Sign", 12, 16), Entity("Sign", 12, 33), Entity("Body", 29, 33)
LINES = {
    "T1": "Drug 40 49\tibuprofen",
    "T2": "Sign 12 33\tpain of the left hand",
    "T3": "Drug 0 7\tAspirin",
    "T4": "Body 29 33\thand",
    "T5": "Sign 12 16\tpain",
}
LOST, UNCLEAR = "relations of entities that were left out", "relations without two entities"


@pytest.fixture
def read(write):
    """Return a function that reads a BRAT file of the entities above and other lines."""

    def read(*links, overlapping=False, lines=LINES):
        write("a.txt", TEXT)
        entities = [f"{name}\t{line}" for name, line in lines.items()]
        path = write("a.ann", "".join(f"{line}\n" for line in [*links, *entities]))
        return read_brat(path, overlapping=overlapping)

    return read


def named(document):
    """Return the relations of a document with the entities they link."""
    ends = document.entities
    return [(r.label, ends[r.head], ends[r.tail]) for r in document.relations]


def left_out(corpus):
    return {dropped.kind: dropped.count for dropped in corpus.dropped}


def test_relations_refer_to_the_entities_in_the_order_of_the_text(read):
    corpus = read("R1\tTreats Arg1:T1 Arg2:T2\t", "R2\tBefore Arg1:T3 Arg2:T1")
    (document,) = corpus.documents
    assert document.entities == (ASPIRIN, PAIN_OF_HAND, IBUPROFEN)
    assert document.relations == (Relation("Treats", 2, 1), Relation("Before", 0, 2))


def test_relations_of_entities_that_overlap_a_longer_one_are_counted(read):
    links = ("R1\tIn Arg1:T5 Arg2:T4", "R2\tTreats Arg1:T1 Arg2:T4", "R3\tTreats Arg1:T1 Arg2:T2")
    corpus = read(*links)
    assert named(corpus.documents[0]) == [("Treats", IBUPROFEN, PAIN_OF_HAND)]
    assert left_out(corpus) == {"entities overlapping a longer one": 2, LOST: 2}
    corpus = read(*links, overlapping=True)
    assert named(corpus.documents[0]) == [
        ("In", PAIN, HAND),
        ("Treats", IBUPROFEN, HAND),
        ("Treats", IBUPROFEN, PAIN_OF_HAND),
    ]
    assert corpus.dropped == []


def test_overlapping_entities_are_sorted_by_start_end_and_label(read):
    lines = {**LINES, "T6": "Site 29 33\thand", "T7": "Body 29 33\thand", "T8": "Arm 29 33\thand"}
    (document,) = read(lines=lines, overlapping=True).documents
    hands = (Entity("Arm", 29, 33), HAND, HAND, Entity("Site", 29, 33))
    assert document.entities == (ASPIRIN, PAIN, PAIN_OF_HAND, *hands, IBUPROFEN)


def test_a_discontinuous_entity_keeps_its_relations(read):
    lines = {**LINES, "T2": "Sign 12 16;24 33\tpain left hand"}
    corpus = read("R1\tTreats Arg1:T1 Arg2:T2", lines={n: lines[n] for n in ("T1", "T2", "T3")})
    assert named(corpus.documents[0]) == [("Treats", IBUPROFEN, Entity("Sign", 24, 33))]
    assert left_out(corpus) == {"discontinuous entities cut to their longest fragment": 1}


def test_named_arguments_have_their_order_and_others_that_of_the_line(read):
    corpus = read("R1\tTreats Arg2:T2 Arg1:T1", "R2\tTreats Sign:T2 Drug:T1")
    assert named(corpus.documents[0]) == [
        ("Treats", IBUPROFEN, PAIN_OF_HAND),
        ("Treats", PAIN_OF_HAND, IBUPROFEN),
    ]


def test_events_are_relations_from_their_trigger(read):
    corpus = read(
        "E1\tDrug:T3 Against:E2 With:T1 With2:T4 ",
        "E2\tSign:T5 Site:T4 Site3:T4 Level2:T1",
        "R1\tBefore Arg1:E1 Arg2:T1",
        "E3\tDrug:T1",
        overlapping=True,
    )
    assert named(corpus.documents[0]) == [
        ("Against", ASPIRIN, PAIN),
        ("With", ASPIRIN, IBUPROFEN),
        ("With", ASPIRIN, HAND),
        ("Site", PAIN, HAND),
        ("Site", PAIN, HAND),
        ("Level2", PAIN, IBUPROFEN),
        ("Before", ASPIRIN, IBUPROFEN),
    ]
    assert corpus.dropped == []


def test_arguments_of_events_that_are_left_out_are_counted(read):
    corpus = read("E1\tDrug:T3 Against:T2 Site:T4", "E2\tBody:T4 Of:T2")
    assert named(corpus.documents[0]) == [("Against", ASPIRIN, PAIN_OF_HAND)]
    assert left_out(corpus) == {"entities overlapping a longer one": 2, LOST: 2}


def test_equivalences_link_each_entity_to_the_later_ones(read):
    corpus = read("*\tEquiv T3 T1 T2")
    assert named(corpus.documents[0]) == [
        ("Equiv", ASPIRIN, IBUPROFEN),
        ("Equiv", ASPIRIN, PAIN_OF_HAND),
        ("Equiv", IBUPROFEN, PAIN_OF_HAND),
    ]


@pytest.mark.parametrize(
    ("line", "kind"),
    [
        ("R1\tTreats Arg1:T1 Arg2:T9", UNCLEAR),
        ("R1\tTreats Arg1:T1", UNCLEAR),
        ("R1\tTreats T1 T2", UNCLEAR),
        ("R1\tTreats Arg1:T1 Arg2:R1", UNCLEAR),
        ("R1\tTreats Arg1:T1 Arg2:T2 Arg3:T3", UNCLEAR),
        ("*\tEquiv T1", UNCLEAR),
        ("*\tEquiv T1 T9", UNCLEAR),
        ("E1\tDrug:T1 Against:T9", UNCLEAR),
        ("E1\tDrug:T9 Against:T1", "events"),
        ("E1\tDrug", "events"),
        ("E1\tDrug:T1" + " a:::::b" * 40 + " x", "events"),
    ],
)
def test_relations_without_two_entities_are_counted(read, line, kind):
    corpus = read(line, overlapping=True)
    assert corpus.documents[0].relations == ()
    assert left_out(corpus) == {kind: 1}


def test_an_identifier_that_is_there_twice_has_no_relations(read, write):
    corpus = read("R1\tTreats Arg1:T1 Arg2:T3", "T1\tBody 29 33\thand")
    assert corpus.documents[0].relations == ()
    assert left_out(corpus)[UNCLEAR] == 1


def test_the_file_of_lost_relations_is_named(read, caplog, tmp_path):
    corpus = read("R1\tIn Arg1:T5 Arg2:T4")
    assert Dropped(str(tmp_path / "a.ann"), LOST, 1) in corpus.dropped
    assert f"{LOST}: 1 ({tmp_path / 'a.ann'})" in caplog.text


# medkit JSON

HEADER = '{"version": "0.2", "content_type": "text_document_list"}\n'


def medkit_entity(uid, entity, *attributes, **changes):
    return {
        "_class_name": "x.Entity",
        "uid": uid,
        "label": entity.label,
        "text": TEXT[entity.start : entity.end],
        "spans": [{"start": entity.start, "end": entity.end}],
        "attrs": list(attributes),
        **changes,
    }


def medkit_relation(source, target, *attributes):
    ends = {"source_id": source, "target_id": target}
    return {"_class_name": "x.Relation", "label": "of", **ends, "attrs": list(attributes)}


def score(value):
    return {"label": "score", "value": value}


@pytest.fixture
def medkit(write):
    """Return a function that writes annotations as medkit does."""

    def medkit(*anns):
        return write("x.jsonl", HEADER + json.dumps({"text": TEXT, "anns": anns}))

    return medkit


def test_medkit_relations_may_come_before_their_entities(medkit, caplog):
    path = medkit(
        medkit_relation("b", "a", score(0.25)),
        medkit_entity("b", IBUPROFEN),
        medkit_entity("a", ASPIRIN, score(0.5)),
    )
    entities = (ASPIRIN._replace(score=0.5), IBUPROFEN)
    expected = [Document(TEXT, entities, "x.jsonl:2", (Relation("of", 1, 0, 0.25),))]
    assert read_documents(path) == expected
    assert not caplog.records


def test_medkit_lost_relations_are_counted_and_overlaps_kept_on_request(medkit, caplog):
    path = medkit(
        medkit_entity("hand", HAND),
        medkit_entity("pain", PAIN_OF_HAND),
        medkit_entity("new", ASPIRIN, spans=[{"length": 7, "replaced_spans": []}]),
        medkit_relation("pain", "hand"),
        medkit_relation("pain", "new"),
        medkit_relation("pain", "nothing"),
    )
    assert read_medkit_json(path)[0].relations == ()
    assert f"{LOST}: 2 ({path}); {UNCLEAR}: 1 ({path})" in caplog.text
    caplog.clear()
    for document in (
        *read_medkit_json(path, overlapping=True),
        *read_documents(path, overlapping=True),
    ):
        assert named(document) == [("of", PAIN_OF_HAND, HAND)]
    assert f"{LOST}: 1 ({path}); {UNCLEAR}: 1 ({path})" in caplog.text


@pytest.mark.parametrize("attributes", [[1.5], [-0.5], [1], ["high"], [None], [0.5, 0.25], [[0.5]]])
def test_medkit_attributes_that_are_no_probability_are_left_out(medkit, caplog, attributes):
    path = medkit(medkit_entity("a", ASPIRIN, *map(score, attributes)))
    assert read_medkit_json(path)[0].entities == (ASPIRIN,)
    assert f"attributes: {len(attributes)} (" in caplog.text


def test_medkit_the_error_names_a_relation_without_a_source(medkit):
    path = medkit({"_class_name": "x.Relation", "label": "of", "target_id": "a"})
    with pytest.raises(
        ValueError, match=r"x\.jsonl:2: found nothing among .* as 'source_id', expected a string"
    ):
        read_medkit_json(path)
