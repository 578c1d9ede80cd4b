import re

import pytest

from medjax.text import Document, Entity, Relation
from medjax.text.readers import Dropped, read_brat, read_documents

TEXT = "Fièvre à 39 °C 🙂 le 3 mai.\r\nPas de toux;\r\ninsuline lente, œdème.\r\n"
COVERED = ("Fièvre", "toux", "insuline lente", "œdème")
BOM = "\ufeff"
WIDTHS = {
    "characters": lambda char: 1,
    "UTF-16 code units": lambda char: len(char.encode("utf-16-le")) // 2,
    "bytes of UTF-8": lambda char: len(char.encode()),
}


def standoff(raw, width, *, one_line_end=False, counts_mark=False):
    """Return T lines for COVERED; unlike the reader, count the prefixes of the text."""

    def count(text):
        text = text if counts_mark else text.replace(BOM, "")
        return sum(map(width, text.replace("\r\n", "\n") if one_line_end else text))

    lines = []
    for number, words in enumerate(COVERED, start=1):
        start = raw.index(words)
        end = start + len(words)
        lines.append(f"T{number}\tSign {count(raw[:start])} {count(raw[:end])}\t{words}\n")
    return "".join(lines)


@pytest.mark.parametrize("mark", ["", BOM])
@pytest.mark.parametrize("counts_mark", [False, True])
@pytest.mark.parametrize("one_line_end", [False, True])
@pytest.mark.parametrize("unit", WIDTHS)
def test_brat_offsets_of_every_convention_are_read(
    write, caplog, unit, one_line_end, counts_mark, mark
):
    write("a.txt", mark + TEXT)
    ann = standoff(mark + TEXT, WIDTHS[unit], one_line_end=one_line_end, counts_mark=counts_mark)
    (document,) = read_brat(write("a.ann", ann)).documents
    assert document.text == TEXT
    assert [TEXT[e.start : e.end] for e in document.entities] == list(COVERED)
    convention = unit + ", CR LF as one" * one_line_end
    convention += ", the byte order mark too" * bool(counts_mark and mark)
    warning = f"BRAT: the offsets count {convention} in some files: 1 ({write('a.ann', ann)})"
    assert caplog.messages == ([] if convention == "characters" else [warning])


def test_brat_there_is_one_warning_for_each_unusual_convention(write, tmp_path, caplog):
    for name in "abcde":
        write(f"{name}.txt", "🙂 toux")
        write(f"{name}.ann", "T1\tSign 3 7\ttoux\n")
    write("f.txt", "é toux")
    write("f.ann", "T1\tSign 3 7\ttoux\n")
    corpus = read_brat(tmp_path)
    assert {document.entities for document in corpus.documents} == {(Entity("Sign", 2, 6),)}
    folder = f"{tmp_path}/"
    assert [message.replace(folder, "") for message in caplog.messages] == [
        "BRAT: the offsets count UTF-16 code units in some files: 5 (a.ann, b.ann, c.ann and 2 "
        "more files)",
        "BRAT: the offsets count bytes of UTF-8 in some files: 1 (f.ann)",
    ]


def test_brat_offsets_inside_a_character_or_of_two_conventions_are_refused(write):
    write("a.txt", "🙂 toux, fièvre 🙂 toux")
    with pytest.raises(ValueError, match=r"a\.ann:1: found the text 'toux', expected 'oux,'"):
        read_brat(write("a.ann", "T1\tSign 3 7\ttoux\nT2\tSign 17 21\ttoux\n"))
    write("b.txt", "ééé")
    with pytest.raises(ValueError, match=r"b\.ann:1: found 2 5, expected START < END <= 3"):
        read_brat(write("b.ann", "T1\tSign 2 5\té\n"))


def test_brat_line_ends_at_the_edge_of_an_entity(write):
    text = "a\r\ntoux\r\nb"
    write("a.txt", text)
    (document,) = read_brat(write("a.ann", "T1\tX 0 1\ta\nT2\tX 1 6\ttoux\n")).documents
    # The carriage return, which does not count, belongs to neither entity.
    assert document.entities == (Entity("X", 0, 1), Entity("X", 2, 7))


def test_brat_byte_order_marks_do_not_shift_entities(write, caplog):
    write("a.txt", BOM + "toux, fièvre")
    line = "T1\tSign {} {}\ttoux\nT2\tSign {} {}\tfièvre\n"
    expected = (
        [Document("toux, fièvre", (Entity("Sign", 0, 4), Entity("Sign", 6, 12)), "a")],
        0,
        0,
    )
    ann = write("a.ann", BOM + line.format(0, 4, 6, 12))
    assert read_brat(ann)[:3] == expected
    assert not caplog.records
    assert read_brat(write("a.ann", line.format(1, 5, 7, 13)))[:3] == expected
    inside = line.replace("\ttoux", f"\t{BOM}toux").format(0, 5, 7, 13)
    assert read_brat(write("a.ann", inside))[:3] == expected
    utf_16 = (BOM + line.format(1, 5, 7, 13)).encode("utf-16-le")
    write("a.txt", (BOM + "toux, fièvre").encode("utf-16-le"))
    assert read_brat(write("a.ann", utf_16), encoding="utf-16")[:3] == expected


def test_brat_carriage_returns_within_entities(write):
    text = "Sortie le 3 mai\r suivi.\nTraitement: insuline\r lente.\n"
    write("a.txt", text)
    for end in ("\n", "\r\n", ""):
        line = f"T1\tDrug 36 51\tinsuline\r lente{end}"
        (document,) = read_brat(write("a.ann", line)).documents
        assert document == Document(text, (Entity("Drug", 36, 51),), "a")


def test_brat_files_with_carriage_returns_only(write):
    write("a.txt", "toux\rrash\r")
    ann = "T1\tSign 0 4\ttoux\r\rT2\tSign 5 9\trash\rR1\tof x\rR2\tof Arg1:T1 Arg2:T2\r"
    corpus = read_brat(write("a.ann", ann))
    entities = (Entity("Sign", 0, 4), Entity("Sign", 5, 9))
    expected = Document("toux\rrash\r", entities, "a", (Relation("of", 0, 1),))
    assert corpus.documents == [expected]
    assert [(kind, count) for _, kind, count in map(tuple, corpus.dropped)] == [
        ("relations without two entities", 1)
    ]


def test_brat_omissions_are_counted_by_file_and_logged(write, tmp_path, caplog):
    write("b.txt", "No pain.\r\nLeft and right arm fracture, mild\nfever.")
    ann = write(
        "b.ann",
        "T1\tProblem 3 7\tpain\n"
        "A1\tNegated T1\n"
        "M1\tNegated T1\n"
        "R1\tof Arg1:T1 Arg2:T2\n"
        "#1\tAnnotatorNotes T1\tsure\n"
        "N1\tReference T1 UMLS:C0030193\tpain\n"
        "E1\tProblem:T1\n"
        "E2\tProblem:T9\n"
        "*\tEquiv T1 T2\n"
        "\n"
        "nothing known\n"
        "Z1\tnothing known\n"
        "T2\tProblem 10 14;25 37\tLeft arm fracture\n"
        "T3\tProblem 19 37\tright arm fracture\n"
        "T4\tProblem 39 43;44 49\tmild fever\n",
    )
    write("a.txt", "Well")
    write("a.ann", "")
    alone = write("README.txt", "not annotated")
    corpus = read_brat(tmp_path)
    assert [document.name for document in corpus.documents] == ["a", "b"]
    assert corpus.documents[1].entities == (
        Entity("Problem", 3, 7),
        Entity("Problem", 19, 37),
        Entity("Problem", 39, 49),
    )
    assert (corpus.nb_dropped, corpus.nb_shortened) == (1, 1)
    assert corpus.dropped == [
        Dropped(str(alone), "texts without an .ann file", 1),
        Dropped(str(ann), "attributes", 2),
        Dropped(str(ann), "notes and normalisations", 2),
        Dropped(str(ann), "lines of unknown kind", 2),
        Dropped(str(ann), "discontinuous entities cut to their longest fragment", 1),
        Dropped(str(ann), "events", 1),
        Dropped(str(ann), "entities overlapping a longer one", 1),
        Dropped(str(ann), "relations of entities that were left out", 2),
    ]
    (message,) = caplog.messages
    assert message.startswith(f"BRAT: left out texts without an .ann file: 1 ({alone}); ")
    assert message.endswith(f"; relations of entities that were left out: 2 ({ann})")
    assert read_documents(tmp_path) == corpus.documents
    assert read_brat([ann]).documents == corpus.documents[1:]


def test_brat_the_warning_names_the_first_files_and_counts_the_others(write, tmp_path, caplog):
    for number in range(15):
        write(f"{number:02}.txt", "")
        write(f"{number:02}.ann", "A1\tNegated T1\n" * (number + 1))
    assert len(read_brat(tmp_path).dropped) == 15
    expected = "BRAT: left out attributes: 120 (00.ann, 01.ann, 02.ann and 12 more files)"
    assert [message.replace(f"{tmp_path}/", "") for message in caplog.messages] == [expected]


def test_brat_logs_nothing_if_nothing_is_left_out(write, caplog):
    write("a.txt", "pain")
    corpus = read_brat(write("a.ann", "T1\tProblem 0 4\tpain\n"))
    assert corpus == ([Document("pain", (Entity("Problem", 0, 4),), "a")], 0, 0, [])
    assert not caplog.records


def test_brat_subfolders_are_read_and_hidden_files_are_not(write, tmp_path):
    for name in ("ward2/deep/b", "ward1/a", "c", "ward1/x.y"):
        write(f"{name}.txt", name)
        write(f"{name}.ann", "")
    write("ward1/._a.ann", b"\x00\x05\x16\x07")  # as macOS writes them
    write("ward1/.ipynb_checkpoints/a-checkpoint.ann", "broken")
    (tmp_path / "ward2" / "loop").symlink_to(tmp_path, target_is_directory=True)
    documents = read_documents(tmp_path)
    assert [document.name for document in documents] == [
        "c",
        "ward1/a",
        "ward1/x.y",
        "ward2/deep/b",
    ]
    assert all(document.text == document.name for document in documents)
    files = [tmp_path / "ward2/deep/b.ann", tmp_path / "ward1/a.ann"]
    assert [d.name for d in read_brat(files).documents] == ["ward1/a", "ward2/deep/b"]


def test_brat_links_to_folders_are_followed(write, tmp_path):
    write("store/a.txt", "a")
    write("store/a.ann", "")
    (tmp_path / "cohort").mkdir()
    (tmp_path / "cohort" / "ward").symlink_to(tmp_path / "store", target_is_directory=True)
    assert [d.name for d in read_brat(tmp_path / "cohort").documents] == ["ward/a"]


def test_brat_suffixes_may_be_in_capitals(write, tmp_path):
    write("a.TXT", "pain")
    write("a.ANN", "T1\tProblem 0 4\tpain\n")
    expected = [Document("pain", (Entity("Problem", 0, 4),), "a")]
    assert read_brat(tmp_path) == (expected, 0, 0, [])
    assert read_documents(tmp_path / "a.ANN") == expected


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("T1\tProblem 0 9\tpain here", "found 0 9, expected START < END <= 8"),
        ("T1\tProblem 4 4\t", "found 4 4, expected START < END"),
        ("T1\tProblem 0 4\there", "found the text 'here', expected 'pain'"),
        ("T1\tProblem 0 4", "found 'T1\\tProblem 0 4', expected ID, tab"),
        ("T1 Problem 0 4 pain", "expected ID, tab"),
        ("T1\tProblem 0 x\tpain", "expected ID, tab"),
        (f"T1\tProblem 0 {'9' * 5000}\tpain", "expected ID, tab"),
    ],
)
def test_brat_the_error_names_a_malformed_line(write, line, message):
    write("a.txt", "pain her")
    path = write("a.ann", f"\n{line}\n")
    with pytest.raises(ValueError, match=re.escape(f"{path}:2: ") + ".*" + re.escape(message)):
        read_brat(path)


def test_brat_the_error_shows_no_line_ends(write):
    write("a.txt", "pain")
    with pytest.raises(ValueError, match=r"found the text 'rash', expected 'pain'"):
        read_brat(write("a.ann", "\r\nT1\tProblem 0 4\trash\r\n"))


def test_brat_the_corpus_has_a_short_repr(write, tmp_path):
    for number in range(50):
        write(f"{number}.txt", "pain " * 100)
        write(f"{number}.ann", "T1\tSign 0 4\tpain\nA1\tNegated T1\n")
    assert repr(read_brat(tmp_path)) == (
        "BratCorpus(50 documents, nb_dropped=0, nb_shortened=0, dropped=50 kinds in files)"
    )


def test_brat_the_error_names_a_missing_file(write, tmp_path):
    with pytest.raises(ValueError, match=r"found no \.ann file"):
        read_brat(tmp_path)
    with pytest.raises(ValueError, match=r"a\.ann:1: found no a\.txt"):
        read_brat(write("a.ann", ""))
