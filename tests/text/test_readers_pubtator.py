"""PubTator: offsets, relations between concepts as relations between mentions, malformed lines."""

import re

import pytest

from medjax.text import Document, Entity, Relation
from medjax.text.readers import format_of, read_documents, read_pubtator

HEAD = "7|t|Aspirin and rash.\n7|a|Aspirin gave a rash, then ibuprofen.\n"
MENTIONS = [
    "7\t0\t7\tAspirin\tDrug\tD1\n",
    "7\t12\t16\trash\tSign\tD2|D3\t\n",
    "7\t18\t25\tAspirin\tDrug\tD1\n",
    "7\t33\t37\trash\tSign\tD2\n",
    "7\t44\t53\tibuprofen\tDrug\t-1\n",
]
ENTITIES = (
    Entity("Drug", 0, 7),
    Entity("Sign", 12, 16),
    Entity("Drug", 18, 25),
    Entity("Sign", 33, 37),
    Entity("Drug", 44, 53),
)


def test_the_text_is_title_line_feed_abstract_and_the_name_is_the_identifier(write):
    second = "8|t|Pain.\n8|a|\n8\t0\t4\tPain\tSign\n"
    documents = read_pubtator(write("a.txt", HEAD + "".join(reversed(MENTIONS)) + "\n" + second))
    text = "Aspirin and rash.\nAspirin gave a rash, then ibuprofen."
    assert documents == [
        Document(text, ENTITIES, "7"),
        Document("Pain.", (Entity("Sign", 0, 4),), "8"),
    ]


def test_a_relation_of_concepts_relates_every_pair_of_their_mentions(write, caplog):
    lines = ["7\tCID\tD1\tD2\n", "7\tCID\tD1\tD3\n", "7\tNone\tD2\tD1\tNo\n"]
    path = write("a.pubtator", HEAD + "".join(MENTIONS + lines))
    (document,) = read_documents(path)
    pairs = [(0, 1), (0, 3), (2, 1), (2, 3)]
    assert document.relations == (
        *(Relation("CID", head, tail) for head, tail in pairs),  # the pairs with D3 are among them
        *(Relation("None", tail, head) for tail, head in [(1, 0), (1, 2), (3, 0), (3, 2)]),
    )
    assert format_of(path) == "pubtator"
    assert caplog.messages == [f"PubTator: left out identifiers of concepts: 4 ({path})"]


def test_relations_without_mention_or_of_a_mention_with_itself_are_counted(write, caplog):
    lines = ["7\tCID\tD1\tD9\n", "7\tCID\tD2\tD3\n", "7\tCID\t-1\tD1\n"]
    path = write("a.txt", HEAD + "".join(MENTIONS + lines))
    (document,) = read_pubtator(path)
    assert document.relations == (Relation("CID", 3, 1),)
    assert [message.replace(f" ({path})", "") for message in caplog.messages] == [
        "PubTator: left out identifiers of concepts: 4; relations of concepts without a mention: "
        "2; relations of an entity with itself: 1"
    ]


def test_overlaps_are_kept_on_request_and_relations_that_lose_an_entity_counted(write, caplog):
    inner = "7\t0\t17\tAspirin and rash.\tNote\tD4\n"
    path = write("a.txt", HEAD + "".join([*MENTIONS, inner]) + "7\tCID\tD4\tD2\n7\tCID\tD2\tD1\n")
    (document,) = read_pubtator(path, overlapping=True)
    assert document.entities == (ENTITIES[0], Entity("Note", 0, 17), *ENTITIES[1:])
    assert document.relations[:2] == (Relation("CID", 1, 2), Relation("CID", 1, 4))
    assert not any("lost" in m or "were left out" in m for m in caplog.messages)
    (document,) = read_pubtator(path)
    assert document.entities == (Entity("Note", 0, 17), *ENTITIES[2:])
    assert document.relations == (Relation("CID", 0, 2), Relation("CID", 2, 1))
    assert "entities overlapping a longer one: 2" in caplog.text
    assert "relations of entities that were left out: 4" in caplog.text


def test_offsets_in_bytes_are_recognised_by_the_mentions(write, caplog):
    path = write("a.txt", "7|t|Fièvre.\n7|a|Une toux.\n7\t13\t17\ttoux\tSign\n")
    (document,) = read_pubtator(path)
    assert document.text[document.entities[0].start :] == "toux."
    assert caplog.messages == [
        f"PubTator: the offsets count bytes of UTF-8 in some files: 1 ({path})"
    ]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "1: found no article, expected ID|t|TITLE, ID|a|ABSTRACT, a mention as ID, START"),
        ("7\t0\t4\tPain\tSign\n", "1: found '7\\t0\\t4\\tPain\\tSign' after no article, expected"),
        (HEAD + "8|a|Rash.\n", "3: found '8|a|Rash.' after the article '7', expected the title"),
        (HEAD + "7|a|Rash.\n", "3: found an abstract of '7', expected one, right after the title"),
        (HEAD + MENTIONS[0] + "\n9\t0\t7\tAspirin\tDrug\n", "5: found '9\\t0\\t7\\tAspirin"),
        (HEAD + "7\t0\tAspirin\tDrug\n", "3: found ['7', '0', 'Aspirin', 'Drug'], expected"),
        (
            HEAD + "7\tx\t7\tAspirin\tDrug\tD1\n",
            "3: found ['7', 'x', '7', 'Aspirin', 'Drug', 'D1']",
        ),
        (HEAD + "7\t0\t7\tAspirin\t\tD1\n", "3: found ['7', '0', '7', 'Aspirin', '', 'D1']"),
        (HEAD + "7\tCID\tD1\n", "3: found ['7', 'CID', 'D1'], expected ID|t|TITLE"),
        (HEAD + "7\t1\t8\tAspirin\tDrug\n", "3: found the text 'Aspirin', expected 'spirin '"),
        (HEAD + "7\t0\t99\tAspirin\tDrug\n", "3: found 0 99, expected START < END <= 54"),
        (HEAD + "7\t0\t7" + "0" * 20 + "\tA\tDrug\n", "3: found ['7', '0', '7000"),
        ("<collection>", "found BioC XML, expected PubTator; medjax.text.readers.read_bioc reads"),
    ],
)
def test_the_error_names_a_malformed_line(write, content, message):
    path = write("a.txt", content)
    with pytest.raises(ValueError, match=re.escape(f"{path}:") + ".*" + re.escape(message)):
        read_pubtator(path)
