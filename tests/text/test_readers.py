import json
import re

import pytest

from medjax.readers import read_brat, read_conll, read_documents, read_medkit_json
from medjax.text import Document, Entity


@pytest.fixture
def write(tmp_path):
    def write(name, content):
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return write


# CoNLL


def test_conll_sentences_and_names(write):
    path = write(
        "notes.tsv",
        "-DOCSTART-\tO\n\nNo\tO\nchest\tB-Problem\npain\tI-Problem\n.\tO\n\n\nECG\tB-Test\nok\tO",
    )
    assert read_conll(path) == [
        Document("No chest pain .", (Entity("Problem", 3, 13),), "notes.tsv:3"),
        Document("ECG ok", (Entity("Test", 0, 3),), "notes.tsv:9"),
    ]


@pytest.mark.parametrize(
    "tags",
    [
        "O I-a I-a B-a I-b",  # IOB1
        "O B-a I-a B-a B-b",  # IOB2
        "O B-a L-a U-a U-b",  # BILOU
        "O B-a E-a S-a S-b",  # BIOES
    ],
)
def test_conll_reads_every_scheme(write, tags):
    path = write("x.conll", "\n".join(f"w {tag}" for tag in tags.split()))
    assert read_conll(path)[0].entities == (
        Entity("a", 2, 5),
        Entity("a", 6, 7),
        Entity("b", 8, 9),
    )


def test_conll_columns_separator_and_joiner(write):
    path = write("x.bio", "1;B-a;胃;x\n2;I-a;痛;x\n")
    (document,) = read_conll(path, token_column=2, tag_column=1, separator=";", joiner="")
    assert document == Document("胃痛", (Entity("a", 0, 2),), "x.bio:1")


def test_conll_byte_order_mark_line_ends_and_no_break_space(write):
    path = write("x.iob", b"\xef\xbb\xbf5\xc2\xa0mg B-a\r\n\r\nno O\r\n")
    assert [document.text for document in read_conll(path)] == ["5\xa0mg", "no"]


def test_conll_comments_are_left_out_and_hash_tokens_are_not(write):
    path = write("x.txt", "# text = vitamin O\n# a b\na _ O\n# _ B-n\n5 _ I-n\n# newdoc\n\n")
    (document,) = read_conll(path)
    assert document.text == "a # 5"
    assert document.entities == (Entity("n", 2, 5),)


@pytest.mark.parametrize(
    ("content", "options", "message"),
    [
        ("a O\n\nb\n", {}, "3: found 1 columns ['b'], expected at least 2"),
        ("a O\n", {"tag_column": 3}, "1: found 2 columns ['a', 'O'], expected at least 4"),
        ("a O\nb DRUG\n", {}, "2: found 'DRUG' as tag, expected O or a prefix and a label"),
        ("a\tO\n\tO\n", {}, "2: found an empty token, expected text in column 0"),
    ],
)
def test_conll_malformed_lines_are_named(write, content, options, message):
    path = write("x.tsv", content)
    with pytest.raises(ValueError, match=re.escape(f"{path}:{message}")):
        read_conll(path, **options)


def test_another_encoding_is_named(write):
    path = write("x.tsv", "fièvre\tO\n".encode("latin-1"))
    with pytest.raises(ValueError, match=r"x\.tsv: byte 2 found; expected text in utf-8"):
        read_conll(path)
    assert read_conll(path, encoding="latin-1")[0].text == "fièvre"


# BRAT


def test_brat_pairs_of_a_folder(write, tmp_path, caplog):
    write("b.txt", "No pain.\r\nLeft and right arm fracture, mild\nfever.")
    write(
        "b.ann",
        "T1\tProblem 3 7\tpain\n"
        "A1\tNegated T1\n"
        "R1\tof Arg1:T1 Arg2:T2\n"
        "#1\tAnnotatorNotes T1\tsure\n"
        "*\tEquiv T1 T2\n"
        "T2\tProblem 10 14;25 37\tLeft arm fracture\n"
        "T3\tProblem 19 37\tright arm fracture\n"
        "T4\tProblem 39 43;44 49\tmild fever\n",
    )
    write("a.txt", "Well")
    write("a.ann", "")
    write("README.txt", "not annotated")
    corpus = read_brat(tmp_path)
    assert [document.name for document in corpus.documents] == ["a", "b"]
    assert corpus.documents[1].entities == (
        Entity("Problem", 3, 7),
        Entity("Problem", 19, 37),
        Entity("Problem", 39, 49),
    )
    assert (corpus.nb_dropped, corpus.nb_shortened) == (1, 1)
    assert "1 entities dropped for overlapping a longer one, 1 discontinuous" in caplog.text
    assert read_documents(tmp_path) == corpus.documents
    assert read_brat([tmp_path / "b.ann"]).documents == corpus.documents[1:]


def test_brat_says_nothing_when_nothing_is_lost(write, caplog):
    write("a.txt", "pain")
    corpus = read_brat(write("a.ann", "T1\tProblem 0 4\tpain\n"))
    assert corpus == ([Document("pain", (Entity("Problem", 0, 4),), "a")], 0, 0)
    assert not caplog.records


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("T1\tProblem 0 9\tpain here", "found 0 9, expected START < END <= 8"),
        ("T1\tProblem 4 4\t", "found 4 4, expected START < END"),
        ("T1\tProblem 0 4\there", "found the text 'here', expected 'pain'"),
        ("T1\tProblem 0 4", "found 'T1\\tProblem 0 4', expected ID, tab"),
        ("T1 Problem 0 4 pain", "expected ID, tab"),
        ("T1\tProblem 0 x\tpain", "expected ID, tab"),
    ],
)
def test_brat_malformed_lines_are_named(write, line, message):
    write("a.txt", "pain her")
    path = write("a.ann", f"\n{line}\n")
    with pytest.raises(ValueError, match=re.escape(f"{path}:2: ") + ".*" + re.escape(message)):
        read_brat(path)


def test_brat_missing_files_are_named(write, tmp_path):
    with pytest.raises(ValueError, match=r"found no \.ann file"):
        read_brat(tmp_path)
    with pytest.raises(ValueError, match=r"a\.ann:1: found no a\.txt"):
        read_brat(write("a.ann", ""))


# medkit


HEADER = '{"version": "0.2", "content_type": "text_document_list"}\n'


def medkit_entity(**changes):
    span = {"start": 0, "end": 4}
    entity = {"_class_name": "x.Entity", "label": "a", "text": "pain", "spans": [span], **changes}
    return HEADER + json.dumps({"text": "pain", "anns": [entity]}) + "\n"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "1: found no JSON"),
        ("{\n\n", "3: found no JSON"),
        (HEADER + "{\n", "2: found no JSON"),
        (
            HEADER.replace("0.2", "0.9"),
            "1: found version and content ('0.9', 'text_document_list')",
        ),
        (
            HEADER.replace("text_document", "audio_document"),
            "expected ('0.2', 'text_document_list')",
        ),
        (HEADER + "\n[]\n", "3: found None as 'text', expected a str"),
        (HEADER + '{"text": "a", "anns": 3}', "2: found 3 as 'anns', expected a list"),
        (medkit_entity(label=3), "2: found 3 as 'label', expected a str"),
        (medkit_entity(spans=[5]), "2: found None as 'start', expected a int"),
        (medkit_entity(spans=[{"start": 0, "end": 9}]), "found a at 0 to 9, expected it in 0 to 4"),
        (medkit_entity(text="pane"), "2: found the text 'pane', expected 'pain'"),
    ],
)
def test_medkit_malformed_lines_are_named(write, content, message):
    path = write("x.jsonl", content)
    with pytest.raises(ValueError, match=re.escape(f"{path}:") + ".*" + re.escape(message)):
        read_medkit_json(path)


def test_medkit_annotations_apart_need_a_single_document(write):
    path = write("x.jsonl", HEADER)
    apart = write("anns.jsonl", HEADER.replace("document", "annotation"))
    with pytest.raises(ValueError, match="found 0 documents, expected one"):
        read_medkit_json(path, apart)


# By name


@pytest.mark.parametrize("name", ["x.tsv", "x.conll", "x.txt", "x.iob", "x.BIO"])
def test_columns_are_read_by_suffix(write, name):
    assert read_documents(write(name, "a O\n"))[0].text == "a"


def test_what_is_not_supported_is_told_what_is(write, tmp_path):
    supported = re.escape("(BRAT), .tsv, .conll, .txt, .iob, .bio (CoNLL columns) or .json, .jsonl")
    with pytest.raises(ValueError, match=r"found the suffix '\.xml'.*" + supported):
        read_documents(write("x.xml", ""))
    with pytest.raises(ValueError, match=r"found a folder without \.ann files.*" + supported):
        read_documents(tmp_path)
    with pytest.raises(FileNotFoundError, match="no such file"):
        read_documents(tmp_path / "absent.tsv")
