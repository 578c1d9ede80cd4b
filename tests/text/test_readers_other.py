import io
import json
import re
import zipfile

import pytest

from medjax.text import Document, Entity
from medjax.text.readers import format_of, read_brat, read_conll, read_documents, read_medkit_json

# medkit

HEADER = '{"version": "0.2", "content_type": "text_document_list"}\n'


def medkit_entity(**changes):
    span = {"start": 0, "end": 4}
    entity = {"_class_name": "x.Entity", "label": "a", "text": "pain", "spans": [span], **changes}
    return HEADER + json.dumps({"text": "pain", "anns": [entity]}) + "\n"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "1: found invalid JSON"),
        ("{\n\n", "3: found invalid JSON"),
        (HEADER + "{\n", "2: found invalid JSON"),
        (
            HEADER.replace("0.2", "0.9"),
            "1: found version and content ('0.9', 'text_document_list')",
        ),
        (
            HEADER.replace("text_document", "audio_document"),
            "expected ('0.2', 'text_document_list'); audio has no text",
        ),
        (
            HEADER.replace("document", "annotation"),
            "pass the document as path and these annotations as anns_path",
        ),
        ('{"a": 1}', "1: found {'a': 1}, expected the header of medkit JSON"),
        ("[5]", "1: found [5], expected the header of medkit JSON"),
        (HEADER + "\n[]\n", "3: found [], expected an object with a string as 'text'"),
        (HEADER + '{"text": "a", "anns": 3}', "2: found 3 as 'anns', expected a list"),
        (medkit_entity(label=3), "2: found 3 as 'label', expected a string"),
        (medkit_entity(spans=[5]), "2: found 5, expected an object with an integer as 'start'"),
        (medkit_entity(spans=[{"start": 0, "end": 9}]), "found a at 0 to 9, expected it in 0 to 4"),
        (medkit_entity(text="pane"), "2: found the text 'pane', expected 'pain'"),
    ],
)
def test_medkit_the_error_names_a_malformed_line(write, content, message):
    path = write("x.jsonl", content)
    with pytest.raises(ValueError, match=re.escape(f"{path}:") + ".*" + re.escape(message)):
        read_medkit_json(path)


def test_medkit_separate_annotations_need_a_single_document(write):
    path = write("x.jsonl", HEADER)
    separate = write("anns.jsonl", HEADER.replace("document", "annotation"))
    with pytest.raises(ValueError, match="found 0 documents, expected one"):
        read_medkit_json(path, separate)


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_medkit_files_with_a_byte_order_mark_and_all_line_ends_are_read(write, end):
    path = write("x.jsonl", "\ufeff" + medkit_entity().replace("\n", end))
    assert read_documents(path) == [Document("pain", (Entity("a", 0, 4),), "x.jsonl:2")]


def test_medkit_omissions_are_logged(write, caplog):
    entity = {"_class_name": "x.Entity", "label": "a", "text": "pain"}
    anns = [
        {**entity, "spans": [{"start": 0, "end": 4}], "attrs": [{"label": "negated"}]},
        {**entity, "spans": [{"start": 0, "end": 4}]},
        {**entity, "spans": [{"length": 4, "replaced_spans": []}]},
        {"_class_name": "x.Segment", "label": "sentence"},
        {"_class_name": "x.Segment", "label": "sentence"},
        {"_class_name": "x.Relation", "label": "of", "source_id": "e", "target_id": "f"},
        {"_class_name": "mine.Note"},
    ]
    record = {"text": "pain", "anns": anns, "attrs": [{"label": "date"}]}
    path = write("x.jsonl", HEADER + json.dumps(record))
    (document,) = read_medkit_json(path)
    assert document.entities == (Entity("a", 0, 4),)
    assert [message.replace(f" ({path})", "") for message in caplog.messages] == [
        "medkit JSON: left out attributes: 2; entities with no original span: 1; segments: 2; "
        "annotations of the class Note: 1; entities overlapping a longer one: 1; "
        "relations without two entities: 1"
    ]


# Files of other tools

SPAN = {"start": 0, "end": 4, "label": "Sign"}
READ = [  # by another reader
    ("a Doccano export", {"id": 1, "text": "pain", "label": [[0, 4, "Sign"]]}, "read_doccano"),
    ("a Doccano export", {"text": "pain", "entities": [], "relations": []}, "read_doccano"),
    ("a Label Studio export", {"id": 1, "data": {}, "annotations": []}, "read_label_studio"),
    ("a Label Studio export", {"text": "pain", "label": [{"labels": ["Sign"]}]}, "read_label_stud"),
    ("a Hugging Face dataset", {"tokens": ["pain"], "ner_tags": [1]}, "read_dataset"),
    ("BioC JSON", {"source": "", "documents": []}, "read_bioc"),
    ("BioC JSON", {"id": "1", "passages": []}, "read_bioc"),
]
JSON = [
    ("spaCy JSON", {"text": "pain", "ents": [SPAN], "tokens": []}, "SpacyInputConverter"),
    ("spaCy JSON", {"id": 0, "paragraphs": []}, "SpacyInputConverter"),
    ("spaCy training data", ["pain", {"entities": [[0, 4, "Sign"]]}], "SpacyInputConverter"),
    ("Prodigy JSON", {"text": "pain", "_input_hash": 1, "spans": [SPAN]}, 'entities="spans"'),
    ("spaCy or Prodigy JSON", {"text": "pain", "spans": [SPAN]}, "SpacyInputConverter"),
    ("PubAnnotation JSON", {"text": "pain", "denotations": []}, "bconv"),
    ("UIMA CAS JSON", {"%TYPES": {}, "%VIEWS": {}}, "CoNLL 2002"),
    ("GLiNER training data", {"tokenized_text": ["pain"], "ner": []}, "a blank line"),
]


def shaped(record, shape):
    return {
        "record": json.dumps(record),
        "list": json.dumps([record, record]),
        "lines": "\ufeff" + 2 * (json.dumps(record) + "\n"),
        "indented": json.dumps([record], indent=1),
    }[shape]


@pytest.mark.parametrize("shape", ["record", "list", "lines", "indented"])
@pytest.mark.parametrize(
    ("name", "record", "remedy"), [*READ, *JSON], ids=[name for name, *_ in [*READ, *JSON]]
)
def test_the_error_names_the_json_of_another_tool(write, name, record, remedy, shape):
    text = shaped(record, shape)
    message = f"found {re.escape(name)}, expected medkit JSON; .*{re.escape(remedy)}"
    with pytest.raises(ValueError, match=message):
        read_medkit_json(write("x.json", text))
    with pytest.raises(ValueError, match=message.replace("medkit JSON", "CoNLL columns")):
        read_conll(write("x.tsv", text))
    for file in ("x.json", "x.unknown", "x.train") if (name, record, remedy) in JSON else ():
        with pytest.raises(ValueError, match=message):
            read_documents(write(file, text))


@pytest.mark.parametrize("shape", ["record", "list", "lines", "indented"])
@pytest.mark.parametrize("padding", [0, 1 << 17], ids=["short", "long"])
def test_json_is_recognised_by_its_first_record(write, shape, padding):
    formats = {format_of(write("x.conll", "a O\n"))}
    for name, record, _ in READ:
        text = shaped({**record, "note": "x" * padding}, shape)
        (found,) = {format_of(write(file, text)) for file in ("x.json", "x.jsonl", "x.other")}
        assert found in name.lower().replace(" ", "_").replace("hugging_face_", "")
        formats.add(found)
    assert formats == {"conll", "doccano", "label_studio", "dataset", "bioc"}


def zip_archive(name):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr(name, "x")
    return file.getvalue()


@pytest.mark.parametrize(
    ("content", "name"),
    [
        (b"PAR1\x15\x04", "a Parquet table"),
        (b"ARROW1\0\0", "an Arrow table"),
        (b"\xff\xff\xff\xff\x10\1", "an Arrow stream"),
        (b"\x1f\x8b\x08\0", "a gzip archive"),
        (zip_archive("notes/a.ann"), "a zip archive"),
        (zip_archive("xl/workbook.xml"), "an Excel workbook"),
        (zip_archive("TypeSystem.xml"), "a UIMA CAS archive"),
        (b'<?xml version="1.0"?>\n<xmi:XMI xmlns:cas="x">', "UIMA CAS XMI"),
        (b'<?xml version="1.0"?>\n<GateDocument>', "GATE XML"),
        (b'<?xml version="1.0"?>\n<note/>', "XML"),
        (b"#FORMAT=WebAnno TSV 3.3\n\n\n#Text=No\n1-1\t0-2\tNo\t_\n", "WebAnno TSV"),
    ],
)
def test_the_error_names_the_file_of_another_tool(write, content, name):
    for file in ("x.tsv", "x.jsonl", "x.other", "x"):
        with pytest.raises(ValueError, match=f"{file}: found {name}.*, expected "):
            read_documents(write(file, content))


@pytest.mark.parametrize(
    ("content", "name", "kind"),
    [
        (
            b'\xef\xbb\xbf<?xml version="1.0"?>\n<!DOCTYPE collection SYSTEM "BioC.dtd">',
            "BioC",
            "bioc",
        ),
        (b'<?xml version="1.0"?>\n<collection><source/>', "BioC XML", "bioc"),
        (b"12|t|Pain\n12|a|Rash.\n12\t0\t4\tPain\tSign\tD1\n", "PubTator", "pubtator"),
    ],
)
def test_lines_and_xml_are_recognised_by_content(write, content, name, kind):
    for file in ("x.tsv", "x.jsonl", "x.other", "x.txt", "x.xml", "x"):
        assert format_of(write(file, content)) == kind
        for reader in (read_conll, read_medkit_json):
            with pytest.raises(ValueError, match=f"{file}: found {name}.*; .*read_{kind} reads"):
                reader(write(file, content))


def test_the_error_names_a_binary_file_in_place_of_a_brat_text(write):
    write("a.txt", zip_archive("word/document.xml"))
    with pytest.raises(ValueError, match=r"a\.txt: found a Word document, expected text"):
        read_brat(write("a.ann", ""))


# Detection by name and by content

SUFFIXES = (
    "tsv conll txt iob BIO conllu conll03 iob2 iobes bioes bilou bmes train dev devel test valid "
    "csv tags"
)


@pytest.mark.parametrize("suffix", SUFFIXES.split())
def test_columns_are_recognised_by_suffix(write, suffix):
    path = write(f"x.{suffix}", "a O\n")
    assert format_of(path) == "conll"
    assert read_documents(path)[0].text == "a"


def test_files_of_unknown_suffix_are_recognised_by_content(write, tmp_path):
    path = write("corpus.gold", "# a comment\nNo O\nrash B-Sign\n\nNo O\n\n" * 9000)
    assert format_of(path) == "conll"
    assert len(read_documents(path)) == 18000
    path = write("corpus", medkit_entity())
    assert format_of(path) == "medkit"
    assert read_documents(path)[0].text == "pain"
    assert format_of(write("a.ann", "")) == format_of(tmp_path) == "brat"


@pytest.mark.parametrize("content", ["", "A note.\nOf two lines, this one longer.\n", "a b\nc d\n"])
def test_the_error_lists_the_supported_formats(write, tmp_path, content):
    supported = r"expected a folder with \.ann files \(BRAT\), CoNLL columns .* or medkit JSON"
    with pytest.raises(ValueError, match=r"found the suffix '\.md' and no columns, " + supported):
        read_documents(write("x.md", content))
    with pytest.raises(ValueError, match=r"found a folder without \.ann files, " + supported):
        read_documents(tmp_path)
    with pytest.raises(FileNotFoundError, match="no such file"):
        read_documents(tmp_path / "absent.tsv")


def test_a_format_that_is_given_is_not_detected(write):
    row = '{"text": "rash", "label": 1, "tokens": ["rash"], "ner_tags": ["B-a"]}'
    table = write("table.jsonl", row)
    assert format_of(table) == "doccano"  # which has texts with labels
    assert read_documents(table, format="dataset")[0][:2] == ("rash", (Entity("a", 0, 4),))
    columns = write("corpus.spacy", "rash B-a\n")
    assert format_of(columns) == "docbin"
    assert read_documents(columns, format="conll")[0].text == "rash"


def test_a_format_that_does_not_exist_or_cannot_be_is_refused(write, tmp_path):
    path = write("x.tsv", "rash\tB-a\n")
    known = "expected one of 'brat', 'conll', .*'dataset', or none"
    with pytest.raises(ValueError, match=rf"x\.tsv: the format is 'col', {known}"):
        read_documents(path, format="col")
    with pytest.raises(ValueError, match="found a folder, expected a file for the format 'conll'"):
        read_documents(tmp_path, format="conll")


def test_overlaps_are_kept_on_request_in_every_format(write):
    text = "12|t|Pain\n12|a|Rash.\n12\t0\t4\tPain\tSign\n12\t1\t4\tain\tPart\n"
    path = write("a.txt", text)
    (document,) = read_documents(path, overlapping=True)
    assert [entity.label for entity in document.entities] == ["Sign", "Part"]
    assert len(read_documents(path)[0].entities) == 1
