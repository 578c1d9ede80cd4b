"""Exact content of written files, their names, and what is refused."""

import weakref

import numpy as np
import pytest

from medjax.text import Document, Entity, Relation
from medjax.text.readers import read_brat, read_documents
from medjax.text.writers import write_brat, write_csv, write_doccano, write_medkit_json

TEXT = "🙂 insuline\r\nlente\tet\ntoux\n"
ENTITIES = (Entity("Drug", 2, 17), Entity("Sign", 11, 26), Entity("Sign", 21, 26))
DOCUMENT = Document(TEXT, ENTITIES, "note", (Relation("Against", 0, 2), Relation("Of", 2, 1)))
TO_FILES = pytest.mark.parametrize("write_to", [write_medkit_json, write_doccano, write_csv])
WRITERS = pytest.mark.parametrize(
    "write_to", [write_brat, write_medkit_json, write_doccano, write_csv]
)


def names_in(folder):
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())


def test_brat_entities_are_split_at_line_ends_and_tabs(tmp_path):
    write_brat([DOCUMENT], tmp_path)
    assert (tmp_path / "note.txt").read_bytes().decode() == TEXT
    assert (tmp_path / "note.ann").read_text(encoding="utf-8") == (
        "T1\tDrug 2 10;12 17\tinsuline lente\n"
        "T2\tSign 11 17;18 20;21 26\t lente et toux \n"
        "T3\tSign 21 26\ttoux \n"
        "R1\tAgainst Arg1:T1 Arg2:T3\n"
        "R2\tOf Arg1:T3 Arg2:T2\n"
    )
    assert read_documents(tmp_path, overlapping=True) == [DOCUMENT]


def test_brat_a_document_without_entities_has_an_empty_ann_file(tmp_path):
    assert write_brat([Document("Well.", name="a/b")], tmp_path / "new") == 1
    assert (tmp_path / "new" / "a" / "b.ann").read_bytes() == b""
    assert read_documents(tmp_path / "new") == [Document("Well.", name="a/b")]


def test_nothing_is_written_for_no_documents(tmp_path):
    assert write_brat([], tmp_path) == 0
    assert names_in(tmp_path) == []
    assert write_medkit_json([], tmp_path / "a.jsonl") == 0
    assert read_documents(tmp_path / "a.jsonl") == []
    assert write_doccano([], tmp_path / "a.jsonl") == 0
    assert (tmp_path / "a.jsonl").read_bytes() == b""
    assert write_csv([], tmp_path / "a.csv") == 0
    assert (tmp_path / "a.csv").read_bytes() == b"document,label,start,end,text,score\r\n"


def test_csv_documents_without_a_name_have_their_number(tmp_path):
    documents = [Document("pain", (Entity("Sign", 0, 4),), name) for name in ("a", "")]
    write_csv(documents, tmp_path / "a.csv")
    rows = (tmp_path / "a.csv").read_text().splitlines()[1:]
    assert rows == ["a,Sign,0,4,pain,", "2,Sign,0,4,pain,"]


@WRITERS
def test_numbers_of_numpy_are_written(write_to, tmp_path):
    entity = Entity("Sign", np.int64(0), np.int32(4), np.float32(0.5))
    write_to([Document("pain", (entity,), "a")], tmp_path / "a")
    content = "".join(
        (tmp_path / "a" / "a.ann" if write_to is write_brat else tmp_path / "a").read_text()
    )
    assert "np." not in content
    assert "pain" in content


# Names of files

NAMES = [
    ("", "document-1"),
    ("notes.jsonl:2", "notes.jsonl_2"),
    ("/etc/note", "_/etc/note"),
    ("../../note", "__/__/note"),
    (".hidden", "_hidden"),
    ("ward\\note?", "ward_note_"),
    ("note\n\x00", "note__"),
    ("note.", "note_"),
    ("a//b ", "a/_/b_"),
    ("é" * 200, "é" * 100),
]


@pytest.mark.parametrize(("name", "file"), NAMES, ids=range(len(NAMES)))
def test_brat_names_that_are_unfit_for_files_are_made_fit(name, file, tmp_path, caplog):
    write_brat([Document("Well.", name=name)], tmp_path / "new")
    assert names_in(tmp_path) == [f"new/{file}.ann", f"new/{file}.txt"]
    assert read_documents(tmp_path / "new") == [Document("Well.", name=file)]
    messages = [f"BRAT: documents named differently: 1 ({name} as {file})"] if name else []
    assert caplog.messages == messages


def test_brat_each_document_has_a_name_of_its_own(tmp_path, caplog):
    names = ["a", "a", "A", "a-2", "a", "é", "e\u0301", "", "document-8", "b?", "b*"]
    write_brat([Document(str(n), name=name) for n, name in enumerate(names)], tmp_path)
    written = {each.name: each.text for each in read_brat(tmp_path).documents}
    assert sorted(written, key=lambda name: int(written[name])) == [
        *("a", "a-2", "A-3", "a-2-2", "a-4", "é", "e\u0301-2", "document-8", "document-8-2"),
        *("b_", "b_-2"),
    ]
    assert caplog.messages == [
        "BRAT: documents named differently: 8 (a as a-2, A as A-3, a-2 as a-2-2 and 5 more)"
    ]


# What is refused

BAD = [
    (
        Document("pain", (Entity("Sign", 2, 5),), "a"),
        r"found Sign at 2 to 5, expected .* 4,",
    ),
    (Document("pain", (Entity("Sign", 2, 2),), "a"), r"found Sign at 2 to 2, expected 0 <= start"),
    (Document("pain", (Entity("Sign", -1, 2),), "a"), r"found Sign at -1 to 2"),
    (Document("pain", (Entity("Sign", 0, 4, 1.5),), "a"), r"found Entity.*1\.5.*expected a score"),
    (Document("pain", (Entity("Sign", 0, 4, float("nan")),), "a"), r"expected a score from 0 to 1"),
    (Document("pain", (), "a", (Relation("Of", 0, 0),)), r"expected head and tail to be places in"),
    (
        Document("pain", (Entity("Sign", 0, 4),), "a", (Relation("Of", 0, -1),)),
        r"found Relation\(label='Of', head=0, tail=-1.*in its 1 entities",
    ),
    (Document("pain \ud83d", (), "a"), r"found '\\ud83d' at position 5 of .*half of a surrogate"),
    (Document("pain", (), "a\udc00"), r"half of a surrogate pair"),
    (Document("pain", (Entity("\udc00", 0, 4),), "a"), r"half of a surrogate pair"),
]


@WRITERS
@pytest.mark.parametrize(("bad", "message"), BAD, ids=range(len(BAD)))
def test_documents_that_no_file_can_hold_are_refused(write_to, bad, message, tmp_path):
    documents = [Document("Well.", name="fit"), bad]
    with pytest.raises(ValueError, match=r"^document 2 \('a.*" + message):
        write_to(documents, tmp_path / "new")
    fit = ["new/fit.ann", "new/fit.txt"]
    assert names_in(tmp_path) == (fit if write_to is write_brat else [])


@pytest.mark.parametrize("label", ["", "a b", "a\tb", "a\n", "\u00a0"])
def test_brat_labels_with_white_space_are_refused(label, tmp_path):
    entity, relation = Entity("Sign", 0, 4), Relation(label, 0, 0)
    for annotations in (((entity._replace(label=label),),), ((entity,), "", (relation,))):
        with pytest.raises(
            ValueError, match=r"document 1: found the label .* white space, .*; rename"
        ):
            write_brat([Document("pain", *annotations)], tmp_path)
    assert names_in(tmp_path) == []


def test_brat_a_byte_order_mark_at_the_beginning_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"document 1: found a byte order mark at the beginning"):
        write_brat([Document("\ufeffpain")], tmp_path)


# Files are replaced as a whole


@TO_FILES
def test_after_an_error_the_file_is_as_it_was(write_to, tmp_path):
    def interrupted():
        yield DOCUMENT
        raise RuntimeError("no more")

    path = tmp_path / "a"
    path.write_text("before")
    with pytest.raises(RuntimeError, match="no more"):
        write_to(interrupted(), path)
    assert path.read_text() == "before"
    assert names_in(tmp_path) == ["a"]
    write_to([DOCUMENT], path)
    assert path.read_text() != "before"
    assert names_in(tmp_path) == ["a"]


def test_brat_after_an_error_the_earlier_documents_are_there(tmp_path):
    def interrupted():
        yield DOCUMENT._replace(name="note-1")
        raise RuntimeError("no more")

    with pytest.raises(RuntimeError, match="no more"):
        write_brat(interrupted(), tmp_path)
    assert names_in(tmp_path) == ["note-1.ann", "note-1.txt"]


@WRITERS
def test_one_document_is_held_at_a_time(write_to, tmp_path):
    class Text(str):
        __slots__ = ("__weakref__",)

    alive = weakref.WeakSet()

    def texts():
        for number in range(20):
            assert len(alive) <= 1
            text = Text(f"pain {number}")
            alive.add(text)
            yield Document(text, (Entity("Sign", 0, 4),), str(number))
            del text

    assert write_to(texts(), tmp_path / "a") == 20
