"""``python -m medjax predict``: what it reads, writes, skips, resumes and refuses."""

import csv
import functools
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import jax
import pytest
import trained_folders

from medjax.cli import main, outputs, prediction
from medjax.components import TokenClassification, load_component
from medjax.text import Document
from medjax.text.readers import read_brat, read_doccano, read_medkit_json
from medjax.text.writers import write_brat, write_csv, write_doccano, write_medkit_json

LOADED = functools.cache(load_component)
WORDS = trained_folders.WORDS.split()
MULTI = {"problem_type": "multi_label_classification"}
TEXTS = {
    "a": "no fever since the stent",
    "b": " ".join(WORDS * 9),  # several windows
    "ward/c": "aspirin relieved her headache\r\nand cough",
    "ward/d": "chest pain",
    "z": "her drug",
}


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Folders of a component of each kind."""
    root = tmp_path_factory.mktemp("models")
    encoder = trained_folders.write_encoder(root / "encoder")
    trained_folders.write_tagger(root / "tagger", encoder)
    trained_folders.write_classifier(root / "classifier", encoder, max_length=32)
    trained_folders.write_classifier(root / "several", encoder, **MULTI)
    trained_folders.write_relations(root / "relations", encoder)
    return root


@pytest.fixture
def notes(tmp_path):
    folder = tmp_path / "notes"
    for name, text in TEXTS.items():
        file = folder / f"{name}.txt"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, newline="")
    return folder


@pytest.fixture
def predict(models, notes, tmp_path, monkeypatch):
    """Return a function that runs the command and returns its exit status and folder.

    Models are read from their folders once.
    """
    monkeypatch.setattr(prediction, "load_component", LOADED)

    def run(model, *arguments, source=notes, output="out"):
        fixed = ["--model", str(models / model), "--input", str(source)]
        status = main(["predict", *fixed, "--output", str(tmp_path / output), *arguments])
        return status, tmp_path / output

    return run


@pytest.fixture
def tagged(models):
    """The notes with the entities that the component itself finds."""
    tagger, variables = load_component(models / "tagger")
    found = tagger.predict(variables, list(TEXTS.values()))
    return [
        Document(text, entities, name)
        for (name, text), entities in zip(TEXTS.items(), found, strict=True)
    ]


def without_scores(documents):
    return [
        each._replace(entities=tuple(e._replace(score=None) for e in each.entities))
        for each in documents
    ]


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


@pytest.mark.parametrize("name", ["jsonl", "doccano", "csv"])
def test_a_file_continues_where_a_killed_start_left_it(predict, monkeypatch, notes, name):
    monkeypatch.setattr(prediction, "_CHUNK_NOTES", 2)
    (notes / "bad.txt").write_bytes(b"\xff")
    (notes / "y.txt").write_bytes(b"\xff")
    _, whole = predict("tagger", "--format", name, output="whole")
    commit, commits = outputs.FileOutput.commit, []

    def killed(output, read):
        commits.append(read)
        if len(commits) == 2:  # after records that the journal does not have
            output._records.flush()
            output.skipped.lines.flush()
            raise KeyboardInterrupt
        commit(output, read)

    monkeypatch.setattr(outputs.FileOutput, "commit", killed)
    assert predict("tagger", "--format", name)[0] == 130
    status, folder = predict("tagger", "--format", name)
    assert status == 0
    assert len(commits) == 2 + 3  # of 4 chunks, the first is not predicted again
    for file in (next(whole.glob("predictions.*")), whole / "skipped.tsv"):
        assert (folder / file.name).read_bytes() == file.read_bytes()


def test_only_notes_that_are_not_complete_are_predicted_again(predict, notes, monkeypatch):
    _, folder = predict("tagger")
    before = {file: file.read_bytes() for file in folder.rglob("*.ann")}
    (folder / "b.ann").unlink()
    (notes / "z.txt").write_text("drug and chest pain")  # changed since
    (notes / "new.txt").write_text("cough")
    written = []
    write = outputs.BratOutput.write

    def counted(output, place, predicted):
        written.append(predicted.document.name)
        write(output, place, predicted)

    monkeypatch.setattr(outputs.BratOutput, "write", counted)
    assert predict("tagger")[0] == 0
    assert written == ["b", "new", "z"]
    assert (folder / "b.ann").read_bytes() == before[folder / "b.ann"]
    assert (folder / "z.txt").read_text() == "drug and chest pain"


def test_relations_are_predicted_again_if_entities_have_changed(predict, tagged, tmp_path):
    source = tmp_path / "annotated"
    write_brat(tagged[:1], source)
    _, folder = predict("relations", source=source)
    lines = (source / "a.ann").read_text().splitlines(keepends=True)
    (source / "a.ann").write_text("".join(lines[:-1]))
    predict("relations", source=source)
    found = (folder / "a.ann").read_text().splitlines(keepends=True)
    assert [line for line in found if line.startswith("T")] == lines[:-1]


def test_notes_that_come_before_the_journal_are_refused(predict, notes, capsys):
    predict("tagger", "--format", "csv")
    (notes / "0.txt").write_text("cough")
    assert predict("tagger", "--format", "csv")[0] == 2
    assert "predictions of the first 5 notes, but these are others now" in capsys.readouterr().err


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
