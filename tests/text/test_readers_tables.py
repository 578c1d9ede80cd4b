"""Labelled texts from tables."""

import json
import re

import pyarrow
import pytest
from pyarrow import parquet

from medjax.text import LabelledText
from medjax.text.readers import read_texts

CSV = 'note,label,patient\n"No fever,\nno ""cough"".",b,P1\nChest pain.,a;b,P2\nWell.,,P2\n'


def write(folder, name, content):
    file = folder / name
    file.write_bytes(content.encode() if isinstance(content, str) else content)
    return file


def test_a_csv_file_with_quoted_cells(tmp_path):
    texts = read_texts(
        write(tmp_path, "notes.csv", CSV), text="note", group="patient", separator=";"
    )
    file = tmp_path / "notes.csv"
    assert texts == [
        LabelledText('No fever,\nno "cough".', ("b",), f"{file}, line 2", "P1"),
        LabelledText("Chest pain.", ("a", "b"), f"{file}, line 4", "P2"),
        LabelledText("Well.", (), f"{file}, line 5", "P2"),
    ]


def test_without_a_separator_a_cell_is_one_label(tmp_path):
    texts = read_texts(write(tmp_path, "notes.CSV", CSV), text="note")
    assert [text.labels for text in texts] == [("b",), ("a;b",), ()]
    assert texts[0].group == ""


def test_tabs_byte_order_marks_and_other_encodings(tmp_path):
    content = "text\tlabel\r\nfièvre\toui\r\n"
    for encoding, codec in (("utf-8", "utf-8-sig"), ("cp1252", "cp1252")):
        file = write(tmp_path, "notes.tsv", content.encode(codec))
        assert read_texts(file, encoding=encoding)[0][:2] == ("fièvre", ("oui",))


@pytest.mark.parametrize(
    ("label", "expected"),
    [("a", ("a",)), (3, ("3",)), (["b", "a", "b"], ("b", "a")), (None, ()), ([], ()), ("", ())],
)
def test_json_lines(tmp_path, label, expected):
    line = json.dumps({"text": "No fever.", "label": label})
    (text,) = read_texts(write(tmp_path, "notes.jsonl", f"\n{line}\n\n"))
    assert text == LabelledText("No fever.", expected, f"{tmp_path / 'notes.jsonl'}, line 2")


def test_parquet(tmp_path):
    table = pyarrow.table({"text": ["No fever.", "Cough."], "label": [["a", "b"], []]})
    parquet.write_table(table, tmp_path / "notes.parquet")
    assert [text.labels for text in read_texts(tmp_path / "notes.parquet")] == [("a", "b"), ()]
    with pytest.raises(ValueError, match="expected a Parquet file"):
        read_texts(write(tmp_path, "broken.parquet", "text"))


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("notes.xlsx", "", "ends in '.xlsx'; expected .csv, .tsv, .jsonl"),
        ("notes.csv", "", "has no rows; expected labelled texts"),
        ("notes.csv", "text,label\n", "has no rows; expected labelled texts"),
        (
            "notes.csv",
            "text;label\na;b\n",
            "has the one column 'text;label', but seems to separate columns by ';'",
        ),
        ("notes.csv", "text,label\na,b,c\n", "line 2 is {'text': 'a', 'label': 'b', None: ['c']}"),
        ("notes.csv", "text,label,label\na,b,c\n", "has several columns named 'label'; expected"),
        ("notes.csv", "text,label\na\n", "expected one cell for each of ['text', 'label']"),
        ("notes.csv", 'text,label\n"a"b,c\n', "expected cells quoted by RFC 4180"),
        (
            "notes.tsv",
            'text\tlabel\n"a\tx\nb\ty\nc"\tz\n',
            "line 2 to 4: found tabs and line ends in the cell 'a\\tx\\nb\\ty\\nc', expected",
        ),
        ("notes.tsv", 'label\ttext\r\nx\t"a\r\ny\tb"\r\n', "line 2 to 3: found tabs and line ends"),
        ("notes.jsonl", "text\n", "line 1 is not JSON"),
        ("notes.jsonl", "[1]\n", "line 1 is [1]; expected a JSON object"),
        ("notes.jsonl", '{"text": 5, "label": "a"}', "the column 'text' is 5; expected a text"),
        ("notes.jsonl", '{"text": "a", "label": 0.5}', "as a string, such as '0.5', or as null"),
        ("notes.jsonl", '{"text": "a", "label": [NaN]}', "has nan; expected names of classes"),
        ("notes.jsonl", '{"text": "a", "label": {}}', "has {}; expected names of classes"),
        ("notes.csv", b"text,label\nfi\xe8vre,a\n", "expected text in utf-8; it looks like cp1252"),
    ],
)
def test_what_cannot_be_read_is_refused_by_name(tmp_path, name, content, told):
    with pytest.raises(ValueError, match=re.escape(told)):
        read_texts(write(tmp_path, name, content))


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("a.csv", "text;label\nno, fever;a\n", "by ';'; expected ',': save it with commas"),
        ("a.csv", "text;label\nno fever;a\n", "has the one column 'text;label', but seems to"),
        (
            "a.csv",
            "text\tlabel\nx\ta\n",
            "expected ',': give format=\"tsv\", or --input-format tsv",
        ),
        ("a.tsv", "text,label\nx,a\n", 'give format="csv", or --input-format csv'),
    ],
)
def test_other_separators_of_columns_are_told(tmp_path, name, content, told):
    with pytest.raises(ValueError, match=re.escape(told)):
        read_texts(write(tmp_path, name, content))


def test_several_columns_of_labels_are_refused_by_name(tmp_path):
    file = write(tmp_path, "notes.csv", "text,a,b\nx,1,0\n")
    with pytest.raises(ValueError, match=r"label is \['a', 'b'\]; expected the name of one column"):
        read_texts(file, label=["a", "b"])
    with pytest.raises(ValueError, match="group is 3; expected the name of one column"):
        read_texts(file, label="a", group=3)


def test_cells_of_a_tsv_file_may_have_line_ends_or_tabs_and_those_of_csv_both(tmp_path):
    file = write(tmp_path, "notes.tsv", 'text\tlabel\n"a\nb"\tx\n"c\td"\ty\n')
    assert [text.text for text in read_texts(file)] == ["a\nb", "c\td"]
    file = write(tmp_path, "notes.csv", 'text,label\n"a,\n\tb",x\n')
    assert [text.text for text in read_texts(file)] == ["a,\n\tb"]


@pytest.mark.parametrize("cell", [None, "", "  ", float("nan")])
@pytest.mark.parametrize("suffix", ["jsonl", "parquet"])
def test_a_missing_group_is_refused_by_row(tmp_path, cell, suffix):
    patients = [7.0 if cell != cell else "P1", cell]
    file = tmp_path / f"notes.{suffix}"
    if suffix == "parquet":
        columns = {"text": ["a", "b"], "label": ["x", "y"], "patient": patients}
        parquet.write_table(pyarrow.table(columns), file)
    else:
        rows = [{"text": "a", "label": "x", "patient": patient} for patient in patients]
        file.write_text("\n".join(map(json.dumps, rows)))
    told = (
        rf"{re.escape(str(file))}, (line|row) \d: the column 'patient' is {cell!r}; expected in "
        "each row what the texts of a group share, such as the id of a patient: fill it in, or "
        "leave out group"
    )
    with pytest.raises(ValueError, match=told):
        read_texts(file, group="patient")
    assert [text.group for text in read_texts(file)] == ["", ""]


@pytest.mark.parametrize("cell", ["", " ", "NA", "nan", "NULL", " N/A "])
def test_a_cell_that_marks_a_missing_group_is_refused(tmp_path, cell):
    file = write(tmp_path, "notes.csv", f"text,label,patient\na,x,P1\nb,y,{cell}\n")
    told = re.escape(f"line 3: the column 'patient' is {cell!r}; expected in each row")
    with pytest.raises(ValueError, match=told):
        read_texts(file, group="patient")


def test_white_space_and_floats_do_not_part_a_patient_or_a_class(tmp_path):
    rows = "a,surgery,P7\nb,surgery ,P7 \nc, surgery,\tP7\n"
    file = write(tmp_path, "notes.csv", f"text,label,patient\n{rows}")
    texts = read_texts(file, group="patient")
    assert [(text.labels, text.group) for text in texts] == [(("surgery",), "P7")] * 3
    rows = [{"text": "a", "label": "x", "patient": patient} for patient in (7, 7.0, "7", 7.5)]
    file = write(tmp_path, "notes.jsonl", "\n".join(map(json.dumps, rows)))
    assert [text.group for text in read_texts(file, group="patient")] == ["7", "7", "7", "7.5"]


def test_how_accents_are_encoded_parts_no_class_and_no_patient(tmp_path):
    one, two = "d\xe9c\xe8s", "de\u0301ce\u0300s"
    file = write(tmp_path, "notes.csv", f"text,label,patient\na,{one},{two}\nb,{two};{one},{one}\n")
    texts = read_texts(file, group="patient", separator=";")
    assert [(text.labels, text.group) for text in texts] == [((one,), one)] * 2


def test_whole_numbers_that_pandas_wrote_as_floats_are_the_same_patient(tmp_path):
    for written in ("7", "7.0", "7.00"):
        file = write(tmp_path, "notes.csv", f"text,label,patient\na,x,{written}\n")
        assert read_texts(file, group="patient")[0].group == "7"
    file = write(tmp_path, "notes.csv", "text,label,patient\na,x,7.01\nb,x,7.0.0\nc,x,A7.0\n")
    assert [text.group for text in read_texts(file, group="patient")] == ["7.01", "7.0.0", "A7.0"]


def test_whole_numbers_that_pandas_wrote_as_floats_are_the_same_class(tmp_path):
    file = write(tmp_path, "notes.csv", "text,label\na,1\nb,1.0\nc,0.0\nd,grade 2.0\n")
    assert [text.labels[0] for text in read_texts(file)] == ["1", "1", "0", "grade 2.0"]
    for grades in (["1.0", "1.5"], ["1.0", "2.0"]):  # named alike in all files of a corpus
        file = write(tmp_path, "notes.csv", "text,label\na,{}\nb,{}\n".format(*grades))
        assert [text.labels[0] for text in read_texts(file)] == grades
    file = write(tmp_path, "notes.csv", "text,label\na,1;1.0;2\n")
    assert read_texts(file, separator=";")[0].labels == ("1", "2")


def test_white_space_within_a_label_parts_no_class(tmp_path):
    rows = ["heart failure", "heart\xa0failure", " heart  failure", "heart\u2009failure", "heart"]
    content = "".join(f"a,{row},{row}\n" for row in rows)
    texts = read_texts(write(tmp_path, "n.csv", f"text,label,ward\n{content}"), group="ward")
    assert [text.labels for text in texts] == [("heart failure",)] * 4 + [("heart",)]
    assert [text.group for text in texts] == ["heart failure"] * 4 + ["heart"]


def test_json_numbers_and_booleans_are_the_classes_of_the_table(tmp_path):
    values = ["1.0", "0", "-2.0", "true", "[false, 3.0]", "null"]
    lines = "".join(f'{{"text": "a", "label": {value}}}\n' for value in values)
    texts = read_texts(write(tmp_path, "notes.jsonl", lines))
    expected = [("1",), ("0",), ("-2",), ("True",), ("False", "3"), ()]
    assert [text.labels for text in texts] == expected


def test_labels_that_mark_missing_values_are_told(tmp_path, caplog):
    file = write(tmp_path, "notes.csv", "text,label\na,NA\nb,x\nc,NA\nd,nan\n")
    assert len(read_texts(file)) == 4
    assert "'label' has 'NA' (2 rows), 'nan' (1 rows), which are learned as classes" in caplog.text
    caplog.clear()
    read_texts(write(tmp_path, "notes.csv", "text,label\na,\nb,NAD\n"))
    assert not caplog.text


def test_a_format_that_is_given_is_not_told_from_the_name(tmp_path):
    file = write(tmp_path, "notes.txt", "text\tlabel\nNo fever, no cough.\ta\n")
    assert read_texts(file, format="tsv")[0][:2] == ("No fever, no cough.", ("a",))
    table = pyarrow.table({"text": ["Cough."], "label": ["b"]})
    parquet.write_table(table, tmp_path / "notes.bin")
    assert read_texts(tmp_path / "notes.bin", format="parquet")[0][:2] == ("Cough.", ("b",))


def test_a_format_that_does_not_exist_or_cannot_be_is_refused(tmp_path):
    known = "expected one of 'csv', 'tsv', 'jsonl', 'parquet', or none"
    with pytest.raises(ValueError, match=f"the format is 'xlsx', {known}"):
        read_texts(tmp_path / "notes.xlsx", format="xlsx")
    with pytest.raises(ValueError, match="a folder; expected a file for the format 'csv'"):
        read_texts(tmp_path, format="csv")
    with pytest.raises(ValueError, match="found list; expected a file for the format 'csv'"):
        read_texts([], format="csv")
