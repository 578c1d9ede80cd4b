import re

import pytest

from medjax.text import Document, Entity
from medjax.text.readers import read_conll, read_documents

FIRST, SECOND = "The patient took ibuprofen for low back pain .", "No fever ."
TAGS = "O O O B-Drug O B-Sign I-Sign I-Sign O / O B-Sign O"


def columns(tags, *, separator="\t", number_from=None):
    """Return the two sentences with these tags; number the tokens if requested."""
    lines = []
    for sentence, row in zip((FIRST, SECOND), tags.split(" / "), strict=True):
        words = zip(sentence.split(), row.split(), strict=True)
        for number, cells in enumerate(words, number_from or 0):
            first_column = [] if number_from is None else [str(number)]
            lines.append(separator.join([*first_column, *cells]))
        lines.append("")
    return "\n".join(lines)


def texts_of(documents):
    """Return the text of each document, with the label and the text of each of its entities."""
    return [(d.text, [(e.label, d.text[e.start : e.end]) for e in d.entities]) for d in documents]


EXPECTED = [
    (FIRST, [("Drug", "ibuprofen"), ("Sign", "low back pain")]),
    (SECOND, [("Sign", "fever")]),
]


def test_conll_sentences_are_documents_named_by_line(write):
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


@pytest.mark.parametrize(
    "change",
    [
        str,
        lambda tags: tags.replace("-", "_"),
        lambda tags: re.sub(r"([BI])-(\w+)", r"\2-\1", tags),
        lambda tags: tags.replace("B-", "b-").replace("I-", "i-").replace("O", "o"),
    ],
    ids=["prefix", "underscore", "suffix", "lower case"],
)
def test_conll_tags_in_any_notation_are_read(write, change, caplog):
    assert texts_of(read_conll(write("x.conll", columns(change(TAGS))))) == EXPECTED
    assert not caplog.records


def test_conll_tags_without_prefix_are_runs_of_a_label(write, caplog):
    tags = re.sub("[BI]-", "", TAGS)
    assert texts_of(read_conll(write("x.conll", columns(tags)))) == EXPECTED
    assert "x.conll: the tags have no prefix (Drug, Sign); adjacent tokens" in caplog.text
    assert len(caplog.records) == 1


def test_conll_tags_without_label_are_entities(write, caplog):
    tags = re.sub(r"-\w+", "", TAGS)
    assert texts_of(read_conll(write("x.conll", columns(tags)))) == [
        (FIRST, [("Entity", "ibuprofen"), ("Entity", "low back pain")]),
        (SECOND, [("Entity", "fever")]),
    ]
    assert "x.conll: the tags have no label; 'Entity' is used" in caplog.text
    assert len(caplog.records) == 1


def test_conll_columns_separator_and_joiner_are_arguments(write):
    path = write("x.bio", "1;B-a;胃;x\n2;I-a;痛;x\n")
    (document,) = read_conll(path, token_column=2, tag_column=1, separator=";", joiner="")
    assert document == Document("胃痛", (Entity("a", 0, 2),), "x.bio:1")
    (document,) = read_conll(write("y.bio", "O\tno\nB-a\trash\n"), tag_column=0)
    assert document == Document("no rash", (Entity("a", 3, 7),), "y.bio:1")


@pytest.mark.parametrize(("first", "numbers"), [(0, "0 1 2"), (1, "1 2 3")])
def test_conll_a_column_of_token_numbers_is_skipped(write, first, numbers):
    path = write("x.conll", columns(TAGS, number_from=first))
    assert texts_of(read_conll(path)) == EXPECTED
    assert read_conll(path, token_column=0)[1].text == numbers


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            "d1 No O\nd1 fever B-a\n\nd2 A O\nd2 rash B-a\n",
            "1: found the same value throughout each sentence ('d1', 'd2') in column 0, expected "
            "tokens; pass token_column=1, which has 'No', 'fever', 'A'",
        ),
        (
            "\n7 No O\n8 fever B-a\n\n9 A O\n",
            "2: found numbers ('7', '8', '9') in column 0, expected tokens; pass token_column=1, "
            "which has 'No', 'fever', 'A'",
        ),
        (
            "1 d1 No O\n2 d1 fever B-a\n3 d1 . O\n",
            "1: found the same value throughout each sentence ('d1') in column 1, expected tokens; "
            "pass token_column=2",
        ),
        (
            "7 O\n8 B-a\n9 O\n",
            "1: found numbers ('7', '8', '9') in column 0, expected tokens; pass the column as "
            "token_column, 0 if these are the tokens",
        ),
        (
            "Sentence #,Word,Tag\nSentence: 1,No,O\n,fever,B-a\n,.,O\n",
            "2: found the same value throughout each sentence ('Sentence: 1') in column 0, "
            "expected tokens; pass token_column=1",
        ),
    ],
)
def test_conll_a_column_without_tokens_is_refused(write, content, message):
    path = write("x.csv", content)
    with pytest.raises(ValueError, match=re.escape(f"{path}:{message}")):
        read_conll(path)


def test_conll_token_numbers_in_short_sentences_are_skipped(write):
    path = write("x.tsv", "0\t-DOCSTART-\tO\n\n0\tNo\tO\n\n0\tYes\tO\n")
    assert [document.text for document in read_conll(path)] == ["No", "Yes"]
    assert read_conll(write("x.tsv", "1\tmg\tO\n"))[0].text == "1"


def test_conll_an_explicit_token_column_is_not_questioned(write):
    assert read_conll(write("x.tsv", "7 O\n8 B-a\n9 O\n"), token_column=0)[0].text == "7 8 9"


@pytest.mark.parametrize(
    ("header", "separator"),
    [("token\ttag", "\t"), ("Token\tNER_tag", "\t"), ("word,label", ","), ("Word;Tag", ";")],
)
def test_conll_a_header_is_left_out(write, header, separator):
    path = write("x.csv", f"{header}\n" + columns(TAGS, separator=separator))
    assert texts_of(read_conll(path)) == EXPECTED
    assert read_conll(path)[0].name == "x.csv:2"


def test_conll_comma_separated_values_are_read_with_quotes_and_empty_lines(write):
    path = write("x.csv", 'word,tag\nLow,B-a\n"back,",I-a\n",O\n"""",O\n,\nNo,O\n')
    assert [d.text for d in read_conll(path)] == ['Low back, " "', "No"]
    same = write("x.tsv", "Low,B-a\nback,I-a\n\nNo,O\n")
    assert [d.text for d in read_conll(same)] == ["Low back", "No"]
    commas = write("y.tsv", "a,b O\n, O\nrash B-a\n")
    assert [d.text for d in read_conll(commas)] == ["a,b , rash"]


def test_conll_byte_order_mark_and_line_ends_are_removed_and_no_break_space_is_not(write):
    path = write("x.iob", b"\xef\xbb\xbf5\xc2\xa0mg B-a\r\n\r\nno O\r\n")
    assert [document.text for document in read_conll(path)] == ["5\xa0mg", "no"]


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r", "\r\r\n"])
def test_conll_all_line_ends_are_read(write, end):
    path = write("x.tsv", columns(TAGS).replace("\n", end))
    assert texts_of(read_conll(path)) == EXPECTED
    assert read_conll(path)[1].name == "x.tsv:11"


def test_conll_a_no_break_space_can_be_a_token(write):
    (first, second) = read_conll(write("x.tsv", "\xa0\tO\nrash\tB-a \t\n \n\u2009 O\n"))
    assert first == Document("\xa0 rash", (Entity("a", 2, 6),), "x.tsv:1")
    assert second.text == "\u2009"


def test_conll_comments_are_left_out_but_hash_tokens_are_kept(write):
    path = write("x.txt", "# text = vitamin O\n# a b\na _ O\n# _ B-n\n5 _ I-n\n# newdoc\n\n")
    (document,) = read_conll(path)
    assert document.text == "a # 5"
    assert document.entities == (Entity("n", 2, 5),)


def test_conll_comments_are_left_out_between_tags_without_prefix(write):
    path = write("x.txt", "# doc\nno O\n# O\nrash Sign\n# Sign\n")
    (document,) = read_conll(path)
    assert document.text == "no # rash #"
    assert document.entities == (Entity("Sign", 5, 11),)


@pytest.mark.parametrize(
    ("content", "options", "message"),
    [
        ("a O\n\nb\n", {}, "3: found 1 columns ['b'], expected at least 2"),
        ("a O\n", {"tag_column": 3}, "1: found 2 columns ['a', 'O'], expected at least 4"),
        ("a b O\nc O\n", {"token_column": 1}, "2: found 2 columns ['c', 'O'], expected at least 3"),
        ("a O\nb B-a\nc DRUG\n", {}, "3: found 'DRUG' as tag, expected O, or a prefix and a label"),
        ("a B-a\nb DRUG\n", {}, "2: found 'DRUG' as tag, expected O, or a prefix and a label"),
        ("a\tO\n\tO\n", {}, "2: found an empty token, expected text in column 0"),
        (
            "a O x\nb B-a y\n",
            {},
            "1: found 'x' as tag, expected O, or a prefix and a label such as B-Drug, in the same "
            "notation for all tags, in column -1; there are tags in column 1, pass tag_column=1",
        ),
        ("terme etat\na O\nb B-a\n", {}, "if this line names the columns, remove it"),
    ],
)
def test_conll_the_error_names_a_malformed_line(write, content, options, message):
    path = write("x.tsv", content)
    with pytest.raises(ValueError, match=re.escape(f"{path}:") + ".*" + re.escape(message)):
        read_conll(path, **options)


@pytest.mark.parametrize(
    ("name", "content", "options", "message"),
    [
        (
            "x.conll",
            "took O\n10 mg O\naspirin B-Drug\nlow dose I-Drug\n",
            {},
            "2: found 3 columns ['10', 'mg', 'O'], expected at most 2, as in most lines; if ",
        ),
        ("x.tsv", "The\tO\ntook\tO\n10 mg O\n", {}, "3: found 3 columns ['10', 'mg', 'O']"),
        ("x.csv", "Word,Tag\nThe,O\n1,5,B-X\nmg,I-X\n", {}, "3: found 3 columns ['1', '5', 'B-X']"),
        (
            "x.tsv",
            "No\tDT\tO\nrash\tNN\tB-Sign\tSIGN\nnow\tRB\tO\n",
            {},
            "2: found 4 columns ['rash', 'NN', 'B-Sign', 'SIGN'], expected at most 3",
        ),
        ("x.tsv", "a\tO\nb\tO\tc\n", {"tag_column": 1}, "2: found 3 columns ['b', 'O', 'c']"),
    ],
)
def test_conll_a_line_with_more_columns_than_most_is_refused(
    write, name, content, options, message
):
    path = write(name, content)
    with pytest.raises(ValueError, match=re.escape(f"{path}:{message}")):
        read_conll(path, **options)


def test_conll_lines_with_fewer_columns_and_separators_at_their_end_are_read(write):
    path = write("x.conll", "The DT O\nlow B-a\npain NN I-a\n")
    assert texts_of(read_conll(path)) == [("The low pain", [("a", "low pain")])]
    path = write("x.conll", "The O\nlow LS B-a\nrash NN I-a\n\n# text = pain\n# . O\n")
    assert [document.text for document in read_conll(path)] == ["The low rash", "#"]
    path = write("x.bio", "no;O\nrash;B-a;\npain;B-a;\n\nno;O\n")
    documents = read_conll(path, token_column=0, tag_column=1, separator=";")
    assert [document.text for document in documents] == ["no rash pain", "no"]
    same = write("x.tsv", "no\tO\nrash\tB-a\t \n")
    assert texts_of(read_conll(same)) == [("no rash", [("a", "rash")])]


def test_conll_a_column_more_in_comments_is_no_error(write):
    path = write("x.conll", "# text = No rash here\nNo O\nrash B-a\n# 1 2 3\n")
    assert [document.text for document in read_conll(path)] == ["No rash"]


def test_conll_tokens_with_a_column_more_that_are_taken_for_comments_are_told(write, caplog):
    path = write("x.txt", "No O\n#1 b O\nrash B-a\n#2 b B-a\n#3 O\n")
    assert texts_of(read_conll(path)) == [("No rash #3", [("a", "rash")])]
    assert f"{path}: left out 2 lines that begin with '#' as comments" in caplog.text
    assert "line 2 is ['#1', 'b', 'O']" in caplog.text
    caplog.clear()
    read_conll(write("x.tsv", "No\tDT\tO\n#1\tb\tNN\tO\n"), tag_column=2)
    assert "line 2 is ['#1', 'b', 'NN', 'O']" in caplog.text


@pytest.mark.parametrize(
    "comment",
    ["# sent_id = 3", "# text = O", "#text = O O", "# vitamin a O", "#begin a 0", "#1 O"],
)
def test_conll_usual_comments_are_not_told(write, caplog, comment):
    read_conll(write("x.txt", f"No DT O\n{comment}\nrash NN B-a\n"))
    assert not caplog.records


@pytest.mark.parametrize(
    ("name", "content", "line"),
    [
        ("x.tsv", "word\tcategory\nNo\tO\nfever\tSign\n", "['word', 'category']"),
        ("x.csv", "token;cat\nNo;O\nfever;B-Sign\n", "['token', 'cat']"),
        ("x.csv", "Mot,POS,Etat\nNo,DT,O\nfever,NN,Sign\n", "['Mot', 'POS', 'Etat']"),
    ],
)
def test_conll_a_first_line_that_may_be_a_header_is_left_out_and_told(
    write, caplog, name, content, line
):
    path = write(name, content)
    assert texts_of(read_conll(path)) == [("No fever", [("Sign", "fever")])]
    assert f"{path}:1: left out {line}, taken for the names of the columns, as" in caplog.text


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ("word Sign\nNo O\nrash Sign\n", "word No rash"),
        ("word B-Sign\nNo O\n", "word No"),
        ("word O\nrash B-Sign\n", "word rash"),
        ("word Sign-B\npain Sign-I\nNo O\n", "word pain No"),
        ("term Sign\nNo O\n", "term No"),
    ],
)
def test_conll_a_first_token_that_names_a_column_is_kept(write, caplog, content, text):
    assert read_conll(write("x.tsv", content))[0].text == text
    assert "left out" not in caplog.text


def test_conll_labels_that_end_like_a_prefix_are_kept_and_told(write, caplog):
    path = write("x.tsv", "a\tO\nb\tHepatitis_B\nc\tO\nd\tHepatitis_E\n")
    assert texts_of(read_conll(path)) == [("a b c d", [("Hepatitis_B", "b"), ("Hepatitis_E", "d")])]
    assert (
        f"{path}: the tag 'Hepatitis_B' is read as the label 'Hepatitis_B', but could be B with "
        "the label 'Hepatitis'; write the tags as in B-Drug if it is"
    ) in caplog.text


def test_conll_prefixes_that_may_be_labels_are_told(write, caplog):
    path = write("x.tsv", "a\tO\nb\tS-phase\n")
    assert texts_of(read_conll(path)) == [("a b", [("phase", "b")])]
    assert "is read as S with the label 'phase', but could be the label 'S-phase'" in caplog.text


def test_conll_a_comment_does_not_change_how_the_tags_are_read(write):
    path = write("x.tsv", "a O\n# Hepatitis_B\nb Hepatitis_I\n")
    assert texts_of(read_conll(path)) == [("a b", [("Hepatitis_I", "b")])]


def test_conll_a_file_that_is_one_long_sentence_is_logged(write, caplog):
    read_conll(write("x.tsv", "word O\n" * 500))
    assert not caplog.records
    read_conll(write("x.tsv", "word O\n" * 501))
    assert "x.tsv: one sentence of 501 tokens; a blank line should end each" in caplog.text


def test_conll_the_error_names_another_format(write):
    with pytest.raises(ValueError, match="found medkit JSON, expected CoNLL columns; medjax"):
        read_conll(write("x.tsv", '{"version": "0.2", "content_type": "text_document_list"}\n'))
    assert read_documents(write("x.tsv", '["\tO\nrash\tB-a\n'))[0].text == '[" rash'
