"""BioC: XML and JSON alike, passages and offsets, relations, hostile and malformed files."""

import json
import re

import pytest

from medjax.text import Document, Entity, Relation
from medjax.text.readers import format_of, read_bioc, read_documents

DOCTYPE = '<?xml version="1.0" encoding="UTF-8"?>\n<!DOCTYPE collection SYSTEM "BioC.dtd">\n'


def annotation(number, start, text, label="Sign", length=None, **infons):
    location = {"offset": start, "length": len(text) if length is None else length}
    infons = {"type": label} | infons
    return {"id": number, "infons": infons, "text": text, "locations": [location]}


def relation(*names, label="Treats", **infons):
    nodes = [{"refid": name, "role": "x"} for name in names]
    return {"id": "R", "infons": {"type": label} | infons, "nodes": nodes}


def document(*passages, relations=(), number="12"):
    return {"id": number, "infons": {}, "passages": [*passages], "relations": [*relations]}


def passage(offset, text, *annotations, **changes):
    return {"offset": offset, "infons": {}, "text": text, "annotations": [*annotations], **changes}


def as_xml(record, tag):
    """Return a BioC JSON object as XML."""
    attributes = {"annotation": ["id"], "relation": ["id"], "node": ["refid", "role"]}
    inline = attributes.get(tag, ["offset", "length"] if tag == "location" else [])
    parts = "".join(f' {name}="{record[name]}"' for name in inline if name in record)
    inner = ""
    for name, value in record.items():
        if name == "infons":
            inner += "".join(f'<infon key="{key}">{text}</infon>' for key, text in value.items())
        elif isinstance(value, list):
            inner += "\n".join(as_xml(child, name.removesuffix("s")) for child in value)
        elif name not in inline:
            inner += f"<{name}>{value}</{name}>"
    return f"<{tag}{parts}>{inner}</{tag}>"


@pytest.fixture(params=["xml", "json"])
def read(request, write):
    """Return a function that reads a document from XML or JSON."""

    def read(*documents, **options):
        collection = {"source": "x", "documents": [*documents]}
        if request.param == "xml":
            return read_bioc(write("a.xml", DOCTYPE + as_xml(collection, "collection")), **options)
        return read_bioc(write("a.json", json.dumps(collection)), **options)

    return read


TITLE = passage(0, "Rash.", annotation("1", 0, "Rash", MESH="D1"))
BODY = passage(
    9,
    "Aspirin for a fever.",
    annotation("2", 9, "Aspirin", "Drug", MESH="D2|D3"),
    annotation("3", 23, "fever", MESH="D4"),
)
TEXT = "Rash.\nAspirin for a fever."
ENTITIES = (Entity("Sign", 0, 4), Entity("Drug", 6, 13), Entity("Sign", 20, 25))


def test_passages_are_joined_and_relations_go_from_node_to_node(read, caplog):
    body = {**BODY, "relations": [relation("3", "2", label="After")]}
    relations = [relation("2", "1"), {**relation("1", "3"), "infons": {"relation": "With"}}]
    (found,) = read(document(TITLE, body, relations=relations))
    links = (Relation("After", 2, 1), Relation("Treats", 1, 0), Relation("With", 0, 2))
    assert found == Document(TEXT, ENTITIES, "12", links)
    (message,) = caplog.messages
    assert message.startswith("BioC: left out infons of annotations other than the label: 3 (")


def test_relations_between_concepts_relate_their_mentions(read, caplog):
    again = passage(40, "Fever", annotation("4", 40, "Fever", identifier="D4"))
    relations = [
        relation(label="CID", Chemical="D3", Disease="D4"),
        relation(label="Bind", entity1="D1", entity2="D2", novel="No"),
        relation(label="CID", Chemical="D3", Disease="D9"),
        relation(label="CID", Chemical="D3"),
    ]
    (found,) = read(document(TITLE, BODY, again, relations=relations))
    assert set(found.relations) == {
        Relation("CID", 1, 2), Relation("CID", 1, 3), Relation("Bind", 0, 1),
    }  # fmt: skip
    assert "relations of concepts without a mention: 2" in caplog.text


def test_what_relations_cannot_be_is_counted(read, caplog):
    nested = {**relation("1", "2"), "id": "R2"}
    relations = [nested, relation("1", "R2"), relation("1", "2", "3"), relation("1", "5")]
    lost = {**annotation("5", 0, "Rash"), "locations": []}
    (found,) = read(document({**TITLE, "annotations": [*TITLE["annotations"], lost]}, BODY,
                             relations=relations))  # fmt: skip
    assert found.relations == (Relation("Treats", 0, 1),)
    kinds = (
        "annotations without a location: 1", "relations of relations: 1",
        "relations of other than two nodes: 1", "relations of entities that were left out: 1",
    )  # fmt: skip
    assert all(kind in caplog.text for kind in kinds)


def test_overlaps_are_kept_on_request(read, caplog):
    inner = annotation("9", 23, "fever.", "Note")
    body = {**BODY, "annotations": [*BODY["annotations"], inner]}
    (found,) = read(document(TITLE, body, relations=[relation("9", "3")]), overlapping=True)
    assert found.entities == (*ENTITIES, Entity("Note", 20, 26))
    assert found.relations == (Relation("Treats", 3, 2),)
    (found,) = read(document(TITLE, body, relations=[relation("9", "3"), relation("9", "1")]))
    assert found.entities == (*ENTITIES[:2], Entity("Note", 20, 26))
    assert found.relations == (Relation("Treats", 2, 0),)
    assert "entities overlapping a longer one: 1" in caplog.text
    assert "relations of entities that were left out: 1" in caplog.text


def test_offsets_in_bytes_and_discontinuous_annotations(read, caplog):
    split = annotation("2", 0, "left wrist")
    text = "Fièvre, left and right wrist."
    split["locations"] = [{"offset": 9, "length": 4}, {"offset": 24, "length": 5}]
    (found,) = read(document(passage(0, text, split, annotation("1", 0, "Fièvre", length=7))))
    assert found.entities == (Entity("Sign", 0, 6), Entity("Sign", 23, 28))
    assert "BioC: the offsets count bytes of UTF-8 in some files: 1" in caplog.text
    assert "discontinuous entities cut to their longest fragment: 1" in caplog.text


def test_sentences_give_the_text_that_their_passage_lacks(read):
    sentences = [
        {
            "offset": 50,
            "infons": {},
            "text": "No rash.",
            "annotations": [annotation("1", 53, "rash")],
        },
        {
            "offset": 60,
            "infons": {},
            "text": "Fever.",
            "annotations": [annotation("2", 60, "Fever")],
        },
    ]
    inner = {"offset": 50, "infons": {}, "sentences": sentences, "relations": [relation("2", "1")]}
    (found,) = read(document(passage(0, "Note"), inner))
    assert found.text == "Note\nNo rash. Fever."
    assert found.entities == (Entity("Sign", 8, 12), Entity("Sign", 14, 19))
    assert found.relations == (Relation("Treats", 1, 0),)
    whole = {**inner, "text": "No rash.  Fever."}
    (found,) = read(document(whole))
    assert found.text == "No rash.  Fever."
    assert found.entities == (Entity("Sign", 3, 7), Entity("Sign", 10, 15))
    with pytest.raises(ValueError, match="found annotations of a passage without text, expected"):
        read(document({**inner, "annotations": [annotation("3", 53, "rash")]}))


def test_other_labels_and_shapes_of_json(write, read):
    body = passage(0, "Rash", {**annotation("1", 0, "Rash"), "infons": {"kind": "Finding"}})
    (found,) = read(document(body), label="kind")
    assert found.entities == (Entity("Finding", 0, 4),)
    with pytest.raises(ValueError, match=r"found the infons \['kind'\] of an annotation, expected"):
        read(document(body))
    one = document(TITLE, number=5)
    shapes = [one, [one], {"PubTator3": [one]}, [{"documents": [one]}]]
    for shape in shapes:
        (found,) = read_documents(write("a.json", json.dumps(shape)))
        assert (found.text, found.name) == ("Rash.", "5")
    lines = "\n".join(json.dumps(document(TITLE, number=str(n))) for n in range(3))
    assert [d.name for d in read_bioc(write("a.jsonl", lines))] == ["0", "1", "2"]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "iso-8859-1"])
def test_xml_is_read_in_the_encoding_it_declares(write, encoding):
    head = f'<?xml version="1.0" encoding="{encoding.removesuffix("-sig")}"?>'
    xml = head + as_xml({"documents": [document(passage(0, "é &lt; è"))]}, "collection")
    path = write("a.xml", xml.encode(encoding))
    assert read_bioc(path)[0].text == "é < è"
    assert read_bioc(path, encoding=encoding)[0].text == "é < è"
    assert format_of(path) == "bioc"


BOMB = "".join(f'<!ENTITY a{n} "{f"&a{n - 1};" * 10}">' for n in range(1, 10))
HOSTILE = [
    (f'<!DOCTYPE collection [<!ENTITY a0 "ha">{BOMB}]>\n', "&a9;", "1: found the entity 'a0'"),
    (
        '<!DOCTYPE collection [<!ENTITY a SYSTEM "file:///etc/passwd">]>',
        "&a;",
        "1: found the entity",
    ),
    ('<!DOCTYPE collection [\n<!ENTITY % a "x">]>', "x", "2: found the entity 'a'"),
    (DOCTYPE, "\n&eacute;", "4: found the entity 'eacute'"),
    ("", "&eacute;", "1: found undefined entity"),
]


@pytest.mark.parametrize(("head", "text", "message"), HOSTILE, ids=range(len(HOSTILE)))
def test_xml_with_entities_is_refused(write, head, text, message):
    xml = head + as_xml({"documents": [document(passage(0, text))]}, "collection")
    path = write("a.xml", xml)
    with pytest.raises(ValueError, match=re.escape(f"{path}:{message}")):
        read_bioc(path)


def collection(inner):
    return (
        f"<collection>\n<document><id>1</id>\n<passage>\n{inner}</passage></document></collection>"
    )


MARK = '<annotation id="1"><infon key="type">a</infon>{}<text>Rash</text></annotation>'
RASH = "<offset>5</offset><text>Rash.</text>\n"


@pytest.mark.parametrize(
    ("xml", "message"),
    [
        (
            "<collection>\n<document>",
            "2: found no element found: line 2, column 10, expected well-f",
        ),
        ("<note/>", "1: found <note>, expected <collection>; pass BioC XML"),
        (
            collection("<text>Rash</text>"),
            "3: found nothing among ['infons', 'text'] as 'off",
        ),
        (collection("<offset>x</offset>"), "3: found 'x' as offset, expected a whole number"),
        (
            collection("<text>a<b/></text>"),
            "4: found elements in <text>, or a second one, expected",
        ),
        (collection(RASH + "<text>a</text>"), "5: found elements in <text>, or a second one"),
        (
            collection(RASH + MARK.format('<location offset="6" length="4"/>')),
            "5, from the start of the passage at 5: found the text 'Rash', expected 'ash.', at its",
        ),
        (
            collection(RASH + MARK.format('<location offset="4" length="5"/>')),
            "5, from the start of the passage at 5: found [(-1, 4)] as start and end, expected no",
        ),
        (
            collection(RASH + MARK.format('<location offset="5" length="9"/>')),
            "5, from the start of the passage at 5: found 0 9, expected START < END <= 5",
        ),
        (
            collection(RASH + '<relation id="R"><node refid="7" role=""/></relation>'),
            "5: found a relation of '7', which 0 annotations are called, expected the id of one",
        ),
        ('<?xml version="1.0" encoding="gbk"?><collection/>', "found multi-byte encodings"),
        (
            "<collection><document/></collection>",
            "1: found nothing among ['infons'] as 'id'",
        ),
        ("{", "1: found invalid JSON"),
        ('{"documents": 3}', "1: found 3 as 'documents', expected a list"),
        (
            '{"documents": [{"id": "9", "passages": [4]}]}',
            "1, document 9: found 4, expected an obj",
        ),
        ('{"text": "a", "label": []}', "found a Doccano export, expected BioC JSON"),
    ],
)
def test_the_error_names_a_malformed_line(write, xml, message):
    path = write("b:c/a.xml", xml)
    with pytest.raises(ValueError, match=re.escape(str(path)) + ".*" + re.escape(message)):
        read_bioc(path)


def test_an_empty_collection_has_no_documents(write):
    assert read_bioc(write("a.xml", "<collection><source/></collection>")) == []
