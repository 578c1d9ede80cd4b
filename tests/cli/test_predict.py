"""``python -m medjax predict``: what it reads, writes, skips, resumes and refuses."""

import csv
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import jax
import pytest
import trained_folders
from sample_notes import MULTI, TEXTS, without_scores

from medjax.cli import main, prediction
from medjax.components import TextClassification, TokenClassification, load_component
from medjax.text.readers import read_brat, read_doccano, read_medkit_json
from medjax.text.writers import write_brat, write_csv, write_doccano, write_medkit_json


def test_entities_as_brat_are_those_of_the_component(predict, tagged):
    status, folder = predict("tagger")
    assert status == 0
    assert sum(len(each.entities) for each in tagged) > 5
    assert read_brat(folder).documents == without_scores(tagged)


@pytest.mark.parametrize(
    ("name", "write"),
    [("jsonl", write_medkit_json), ("doccano", write_doccano), ("csv", write_csv)],
)
def test_entities_in_a_file_are_as_the_writer_writes_them(predict, tagged, name, write, tmp_path):
    status, folder = predict("tagger", "--format", name)
    assert status == 0
    (file,) = folder.glob("predictions.*")
    write(tagged, tmp_path / "expected")
    assert file.read_bytes() == (tmp_path / "expected").read_bytes()


@pytest.mark.parametrize("name", ["csv", "jsonl"])
def test_classes_of_texts_are_those_of_the_component(predict, models, name):
    classifier, variables = load_component(models / "classifier")
    expected = classifier.predict(variables, list(TEXTS.values()))
    status, folder = predict("classifier", "--format", name)
    lines = (folder / f"predictions.{name}").read_text().splitlines()
    if name == "jsonl":
        found = [json.loads(line) for line in lines]
        assert [(each["labels"], each["probabilities"]) for each in found] == [
            (list(each.labels), each.probabilities) for each in expected
        ]
    else:
        header, *found = csv.reader(lines)
        assert header == ["document", "labels", *classifier.labels]
        assert [row[1:] for row in found] == [
            [*each.labels, *map(str, each.probabilities.values())] for each in expected
        ]
        assert [row[0] for row in found] == list(TEXTS)
    assert status == 0


def test_the_threshold_decides_how_many_classes_a_text_has(predict):
    labels = []
    for threshold in ("0", "1"):
        _, folder = predict("several", "--threshold", threshold, output=f"out{threshold}")
        lines = folder.joinpath("predictions.csv").read_text().splitlines()
        labels.append([row[1] for row in csv.reader(lines)][1:])
    assert labels == [["cardiology;surgery;other"] * 5, [""] * 5]


@pytest.mark.parametrize("name", ["brat", "jsonl", "doccano", "csv"])
def test_relations_join_the_entities_of_brat(predict, models, tagged, name, tmp_path):
    tagged = [each for each in tagged if len(each.text) < 100]
    write_brat(tagged, tmp_path / "annotated")
    model, variables = load_component(models / "relations")
    expected = [
        each._replace(relations=relations)
        for each, relations in zip(
            without_scores(tagged), model.predict(variables, tagged), strict=True
        )
    ]
    assert any(each.relations for each in expected)
    status, folder = predict(
        "relations", "--format", name, source=tmp_path / "annotated", output="related"
    )
    assert status == 0
    if name == "csv":
        write_csv(expected, tmp_path / "expected", relations=True)
        assert (folder / "predictions.csv").read_bytes() == (tmp_path / "expected").read_bytes()
        return
    found = {
        "brat": lambda: read_brat(folder).documents,
        "jsonl": lambda: read_medkit_json(folder / "predictions.jsonl"),
        "doccano": lambda: read_doccano(folder / "predictions.jsonl"),
    }[name]()
    assert [(e.entities, [r[:3] for r in e.relations]) for e in found] == [
        (e.entities, [r[:3] for r in e.relations]) for e in expected
    ]


def test_lines_of_json_are_named_and_bad_ones_listed(predict, tmp_path):
    lines = [
        '{"text": "no fever", "id": "x"}',
        "",
        "{nothing",
        '{"text": "chest pain", "name": "x"}',
        '{"text": "cough"}',
        '{"note": "cough"}',
        '{"text": "\\ud800"}',
        '{"text": "aspirin", "id": "../up"}',
    ]
    source = tmp_path / "some.jsonl"
    source.write_text("\n".join(lines))
    for _ in range(2):  # names are the same in a second start
        status, folder = predict("tagger", source=source)
        assert status == 0
        names = sorted(file.relative_to(folder).as_posix() for file in folder.rglob("*.ann"))
        assert names == ["__/up.ann", "some-5.ann", "x-2.ann", "x.ann"]
        assert folder.joinpath("x-2.txt").read_text() == "chest pain"
        skipped = folder.joinpath("skipped.tsv").read_text().splitlines()
        assert [line.split("\t")[0] for line in skipped] == ["some-3", "some-6", "some-7"]


def test_offsets_are_those_of_the_text_in_a_line(predict, tmp_path, capsys):
    source = tmp_path / "some.jsonl"
    lines = [{"text": text} for text in ("\ufeffNo fever", "No fever")]
    source.write_text("\n".join(map(json.dumps, lines)))
    _, folder = predict("tagger", "--format", "doccano", source=source)
    marked, plain = read_doccano(folder / "predictions.jsonl")
    assert [d.text for d in (marked, plain)] == [line["text"] for line in lines]
    assert plain.entities
    assert [(e.label, e.start - 1, e.end - 1) for e in marked.entities] == [
        e[:3] for e in plain.entities
    ]
    assert predict("tagger", source=source, output="brat")[0] == 0
    assert (
        "some-1: its text begins with a byte order mark, which readers" in capsys.readouterr().err
    )
    assert [file.name for file in (tmp_path / "brat").glob("*.ann")] == ["some-2.ann"]


def test_notes_with_files_of_another_name_are_listed(predict, tmp_path, caplog):
    source = tmp_path / "some.jsonl"
    names = ["p1:7", "p1_7", "7", "7"]
    source.write_text("\n".join(json.dumps({"id": name, "text": "no fever"}) for name in names))
    told = "3 notes have files of another name, listed in "
    for _ in range(2):  # a second start tells the same
        caplog.clear()
        _, folder = predict("tagger", source=source)
        (message,) = caplog.messages
        assert message.startswith(told)
        assert message.endswith(": p1:7 as p1_7, p1_7 as p1_7-2, 7 as 7-2")
        listed = (folder / "names.tsv").read_text().splitlines()
        assert listed == ["p1:7\tp1_7", "p1_7\tp1_7-2", "7\t7-2"]


def test_names_that_several_notes_have_are_told(predict, tmp_path, caplog):
    source = tmp_path / "some.jsonl"
    source.write_text("\n".join(json.dumps({"id": n, "text": "no fever"}) for n in "787"))
    for _ in range(2):
        caplog.clear()
        predict("tagger", "--format", "csv", source=source)
        (message,) = caplog.messages
        assert message.endswith("predictions.csv: 1 documents have the name of an earlier one: '7'")


def test_what_the_notes_are_can_be_given(predict, tmp_path, notes, capsys):
    line = '{"text": "no fever", "id": "x"}'
    source = tmp_path / "note.json"
    source.write_text(line)
    assert predict("tagger", source=source)[0] == 2
    assert "say what it is with --input-format text or jsonl" in capsys.readouterr().err
    for name, file, text in (("jsonl", "x", "no fever"), ("text", "note", line)):
        status, folder = predict("tagger", "--input-format", name, source=source, output=name)
        assert status == 0
        assert [path.name for path in folder.glob("*.txt")] == [f"{file}.txt"]
        assert folder.joinpath(f"{file}.txt").read_text() == text
    assert predict("tagger", "--input-format", "jsonl", source=notes)[0] == 2
    assert "found a folder, expected a file of JSON lines" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        predict("tagger", "--input-format", "pdf")
    assert "'text', 'jsonl'" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["brat", "csv"])
def test_bad_files_are_skipped_and_listed(predict, notes, name, capsys):
    (notes / "bad.txt").write_bytes(b"fi\xe8vre")
    (notes / "blank.txt").write_text(" \n")
    (notes / "broken.txt").symlink_to("nowhere")
    (notes / "zero.txt").write_bytes(b"a\0b")
    (notes / ".hidden.txt").write_text("hidden")
    status, folder = predict("tagger", "--format", name)
    assert status == 0
    assert folder.joinpath("skipped.tsv").read_text().splitlines() == [
        "bad\tnot UTF-8: byte 0xe8 at 2",
        "blank\tempty",
        "broken\tNo such file or directory",
        "zero\tnot text: it has zero bytes",
    ]
    told = capsys.readouterr().err
    assert "5 notes predicted" in told
    assert "4 skipped" in told
    assert "bad: not UTF-8: byte 0xe8 at 2" in told


def test_the_status_says_that_nothing_could_be_read(predict, tmp_path):
    folder = tmp_path / "empty"
    folder.mkdir()
    (folder / "a.txt").write_text("")
    assert predict("tagger", source=folder)[0] == 1


def test_suffixes_may_be_capitals(predict, notes, tmp_path, capsys):
    (notes / "ward" / "UP.TXT").write_text("cough")
    status, folder = predict("tagger")
    assert status == 0
    assert (folder / "ward" / "UP.txt").read_text() == "cough"
    assert predict("tagger", source=notes / "ward" / "UP.TXT", output="one")[0] == 0
    (notes / "ward" / "UP.txt").write_text("fever")
    capsys.readouterr()
    if len(list((notes / "ward").iterdir())) == 4:  # where capitals count
        assert predict("tagger", output="two")[0] == 2
        told = "found ward/UP.TXT and ward/UP.txt, expected names that differ without the suffix"
        assert told in capsys.readouterr().err


@pytest.mark.parametrize(
    ("model", "arguments", "told"),
    [
        ("classifier", [], "component was 'TokenClassification' and is 'TextClassification'"),
        ("tagger", ["--format", "csv"], "format was 'brat' and is 'csv'"),
        ("tagger", ["--precision", "bfloat16"], "precision was 'float32' and is 'bfloat16'"),
        ("tagger", ["--max-length", "32"], "max_length was 64 and is 32"),
    ],
)
def test_predictions_with_other_settings_do_not_mix(predict, model, arguments, told, capsys):
    predict("tagger")
    assert predict(model, *arguments)[0] == 2
    assert told in capsys.readouterr().err


def test_predictions_of_other_weights_do_not_mix(predict, models, tmp_path, capsys):
    predict("tagger")
    copy = tmp_path / "copy"
    shutil.copytree(models / "tagger", copy)
    tagger = TokenClassification.from_pretrained(copy)
    tagger.save(copy, jax.tree.map(lambda leaf: leaf * 1.01, tagger.load(copy)))
    assert predict(copy)[0] == 2
    assert "model was " in capsys.readouterr().err


@pytest.mark.parametrize(
    ("model", "arguments", "told"),
    [
        ("classifier", ["--format", "brat"], "--format is brat; expected csv or jsonl"),
        ("tagger", ["--threshold", "0.3"], "--threshold is 0.3"),
        ("tagger", ["--max-length", "999"], "max_length is 999; expected 3 to 64"),
    ],
)
def test_what_does_not_fit_the_model_is_refused(predict, model, arguments, told, capsys):
    assert predict(model, *arguments)[0] == 2
    assert told in capsys.readouterr().err


def test_the_output_is_neither_among_the_notes_nor_among_other_files(predict, notes, capsys):
    (notes.parent / "used").mkdir()
    (notes.parent / "used" / "a.ann").write_text("")
    assert predict("tagger", output="notes")[0] == 2
    assert predict("tagger", output="notes/found")[0] == 2
    assert predict("tagger", output="used")[0] == 2
    told = capsys.readouterr().err.splitlines()
    assert ["in the folder of the notes" in line for line in told] == [True, True, False]
    assert "has other files" in told[2]


def test_labels_that_brat_cannot_hold_are_refused_at_the_start(predict, models, tmp_path, capsys):
    folder = tmp_path / "spaced"
    encoder = models / "encoder"
    trained_folders.save(TokenClassification.from_pretrained(encoder, ["Adverse event"]), folder)
    assert predict(folder)[0] == 2
    assert "found the label 'Adverse event'" in capsys.readouterr().err
    assert predict(folder, "--format", "csv", output="table")[0] == 0


def test_classes_with_the_separator_of_a_table_are_refused(predict, models, tmp_path, capsys):
    for several in (True, False):
        folder = tmp_path / f"classifier {several}"
        made = TextClassification.from_pretrained(
            models / "encoder", ["a;b", "a", "b"], **(MULTI if several else {})
        )
        trained_folders.save(made, folder)
        assert predict(folder, output=f"out {several}")[0] == (2 if several else 0)
    assert "separates the classes of a text by ';', which is in ['a;b']" in capsys.readouterr().err


def test_classes_with_the_name_of_another_column_are_refused(predict, models, tmp_path, capsys):
    folder = tmp_path / "classifier"
    made = TextClassification.from_pretrained(models / "encoder", ["labels", "a", "document"])
    trained_folders.save(made, folder)
    assert predict(folder)[0] == 2
    told = "there are classes called ['labels', 'document']; expected other names, or --format"
    assert told in capsys.readouterr().err
    assert predict(folder, "--format", "jsonl")[0] == 0


def test_programs_are_compiled_once_for_all_chunks(predict, notes, monkeypatch, traces):
    for number in range(12):
        (notes / f"more{number}.txt").write_text("no fever")
    monkeypatch.setattr(prediction, "_CHUNK_NOTES", 4)
    predict("tagger", output="first")
    compiled = len(traces)
    for number in range(12, 60):
        (notes / f"more{number}.txt").write_text("no fever")
    predict("tagger", output="second")
    assert len(traces) - compiled <= compiled


def test_the_commands_of_the_documentation_run(models, notes, tmp_path, monkeypatch, capsys):
    text = Path(__file__).parents[2].joinpath("docs", "predicting.md").read_text()
    for model in ("tagger", "classifier", "relations"):
        (tmp_path / model).symlink_to(models / model)
    (tmp_path / "notes.jsonl").write_text('{"text": "no fever"}\n')
    monkeypatch.chdir(tmp_path)
    (block,) = re.findall(r"```sh\n(.*?)```", text, flags=re.DOTALL)
    commands = [line.removeprefix("python -m medjax ").split() for line in block.splitlines()]
    assert len(commands) == 4
    assert [main(command) for command in commands] == [0] * 4
    (example,) = re.findall(r"```python\n(from medjax.components.*?print.*?)```", text, re.DOTALL)[
        :1
    ]
    exec(compile(example, "predicting.md", "exec"), {})
    assert capsys.readouterr().out.startswith("[(")


def test_help_names_the_commands_and_their_arguments():
    done = subprocess.run(
        [sys.executable, "-m", "medjax", "predict", "--help"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "--model" in done.stdout
    assert "skipped.tsv" in done.stdout
