import pytest

from medjax.text import Document, Entity, Relation, split_sentences, without_overlaps


def test_the_longest_of_overlapping_entities_is_kept():
    entities = [Entity("a", 0, 4), Entity("b", 3, 9), Entity("c", 8, 10), Entity("d", 10, 12)]
    assert without_overlaps(entities) == ((Entity("b", 3, 9), Entity("d", 10, 12)), 2)


def test_the_first_of_equally_long_entities_is_kept():
    entities = [Entity("b", 2, 5), Entity("a", 0, 3), Entity("c", 0, 3)]
    assert without_overlaps(entities) == ((Entity("a", 0, 3),), 2)


@pytest.mark.parametrize(
    ("text", "sentences"),
    [
        ("No fever. No cough.", ["No fever.", "No cough."]),
        ("Why? 3 days.\n\n  Then home ", ["Why?", "3 days.", "Then home"]),
        ("Seen by Dr. Roe, J. Roe and co.", ["Seen by Dr. Roe, J. Roe and co."]),
        ("1. Aspirin. 2. Rest", ["1. Aspirin.", "2. Rest"]),
        ("given b.i.d. with food", ["given b.i.d. with food"]),
        ("Stop. \nthen on", ["Stop.", "then on"]),
        ("2.5 mg of it", ["2.5 mg of it"]),
        (" \n ", []),
        ("", []),
    ],
)
def test_documents_are_split_into_sentences(text, sentences):
    assert [document.text for document in split_sentences(Document(text))] == sentences


def test_no_sentence_ends_inside_an_entity_and_offsets_are_rebased():
    text = "Had St. A. Fever\ntwice. Now well."
    entities = (Entity("Sign", 11, 22), Entity("State", 28, 32))
    first, second = split_sentences(Document(text, entities, "note.txt"))
    assert first == Document("Had St. A. Fever\ntwice.", (Entity("Sign", 11, 22),), "note.txt#1")
    assert second == Document("Now well.", (Entity("State", 4, 8),), "note.txt#2")


def test_relations_within_a_sentence_are_kept_and_others_told(caplog):
    text = "Seen. Aspirin for pain. Iron for anaemia."
    entities = tuple(
        Entity("x", text.index(word), text.index(word) + len(word))
        for word in ("Aspirin", "pain", "Iron", "anaemia")
    )
    within = (Relation("For", 0, 1), Relation("By", 3, 2, 0.5))
    document = Document(text, entities, "note.txt", (*within, Relation("With", 0, 2)))
    seen, first, second = split_sentences(document)
    assert seen.relations == ()
    assert first.relations == (Relation("For", 0, 1),)
    assert second.relations == (Relation("By", 1, 0, 0.5),)
    (told,) = caplog.records
    assert (told.name, told.levelname) == ("medjax", "WARNING")
    assert told.message == ("note.txt: 1 of 3 relations are between two sentences and left out")
    caplog.clear()
    split_sentences(document._replace(relations=within))
    assert not caplog.records


def test_repr_of_a_long_document_is_short():
    entities = tuple(Entity("Sign", n, n + 1) for n in range(400))
    shown = repr(Document("fever " * 1000, entities, "note.txt"))
    assert len(shown) < 400
    assert "... (6,000 characters)" in shown
    assert "... 397 more)" in shown


def test_repr_of_a_short_document_is_complete():
    document = Document("No fever.", (Entity("Sign", 3, 8),), "note.txt")
    assert eval(repr(document)) == document


def test_entities_may_come_in_any_order():
    text = "No fever. Pain since Monday. Aspirin helped. Chest pain. Big"
    entities = [("Drug", 29, 36), ("Sign", 3, 8), ("Sign", 10, 14), ("Sign", 45, 60)]
    document = Document(text, tuple(Entity(*each) for each in entities), "n")
    relations = (Relation("Relieves", 0, 0), Relation("Is", 2, 2), Relation("Is", 1, 1))
    sentences = split_sentences(document._replace(relations=relations))
    found = [[s.text[e.start : e.end] for e in s.entities] for s in sentences]
    assert found == [["fever"], ["Pain"], ["Aspirin"], ["Chest pain. Big"]]
    assert [s.text for s in sentences] == [
        "No fever.",
        "Pain since Monday.",
        "Aspirin helped.",
        "Chest pain. Big",
    ]
    assert [s.relations for s in sentences] == [
        (Relation("Is", 0, 0),),
        (Relation("Is", 0, 0),),
        (Relation("Relieves", 0, 0),),
        (),
    ]


def test_white_space_inside_an_entity_is_not_stripped():
    (sentence,) = split_sentences(Document("  fever ", (Entity("Sign", 1, 8, 0.5),)))
    assert sentence.text == " fever "
    assert sentence.entities == (Entity("Sign", 0, 7, 0.5),)
