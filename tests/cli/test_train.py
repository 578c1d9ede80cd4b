"""``python -m medjax train``: a run for each task, its report, resuming, and what is refused."""

import json

import pytest
import trained_folders

from medjax import last_checkpoint
from medjax.cli import main, training
from medjax.components import load_component
from medjax.text import Document, Entity, Relation
from medjax.text.writers import write_brat

SIGNS, DRUGS = ["fever", "headache", "cough"], ["aspirin", "drug"]
PAIRS = [(drug, sign) for drug in DRUGS for sign in SIGNS] * 2


def note(number, drug, sign):
    text = f"her {drug} relieved her {sign}"
    start = text.index(sign, 10)
    drug_at = Entity("Drug", 4, 4 + len(drug))
    sign_at = Entity("Sign", start, start + len(sign))
    return Document(
        text, (drug_at, sign_at), f"note{number}", relations=(Relation("Relieves", 0, 1),)
    )


NOTES = [note(number, *pair) for number, pair in enumerate(PAIRS)]


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    return trained_folders.write_encoder(tmp_path_factory.mktemp("models") / "encoder")


@pytest.fixture(scope="module")
def brat(tmp_path_factory):
    """A folder with BRAT files for each part."""
    root = tmp_path_factory.mktemp("corpus")
    for name, notes in (("train", NOTES[:8]), ("dev", NOTES[8:10]), ("test", NOTES[6:])):
        write_brat(notes, root / name)
    return root


@pytest.fixture
def letters(tmp_path):
    file = tmp_path / "letters.csv"
    rows = [
        f"{n.text} {number},{'heart' if 'drug' in n.text else 'head'};ward"
        for number, n in enumerate(NOTES * 2)
    ]
    file.write_text("\n".join(["letter,topics", *rows]))
    return file


@pytest.fixture
def train(encoder, tmp_path):
    """Return a function that runs the command and returns its exit status and folder."""

    def run(task, data, *arguments, output="out"):
        fixed = ["--task", task, "--data", str(data), "--model", str(encoder), "--epochs", "2"]
        fixed += [
            "--output",
            str(tmp_path / output),
            "--batch-size",
            "4",
            "--learning-rate",
            "0.01",
        ]
        return main(["train", *fixed, *arguments]), tmp_path / output

    return run


def report_of(folder):
    """Return the scores that ``train`` has written."""
    return (folder / "report.txt").read_text().removeprefix("Test: ").rstrip("\n")


def evaluated(folder, data, capsys, *arguments):
    """Return what ``evaluate`` says of the model."""
    capsys.readouterr()
    fixed = ["--model", str(folder / "model"), "--data", str(data)]
    assert main(["evaluate", *fixed, *arguments]) == 0
    return capsys.readouterr().out


@pytest.mark.parametrize("task", ["entities", pytest.param("relations", marks=pytest.mark.slow)])
def test_documents_are_learned_and_reported_on(train, brat, task, capsys):
    status, folder = train(task, brat)
    assert status == 0
    assert {path.name for path in folder.iterdir()} == {
        "checkpoints",
        "learning_curves.png",
        "metrics.csv",
        "metrics.jsonl",
        "model",
        "report.html",
        "report.txt",
        "split.json",
    }
    assert "8 / 2 / 6 to train, choose and report on" in capsys.readouterr().out
    report = (folder / "report.txt").read_text()
    assert report.startswith("Test: 6 documents")
    page = (folder / "report.html").read_text()
    assert "6 documents, " in page
    assert "2 epochs; written" in page
    assert NOTES[6].text not in page  # the texts are the patients'
    told = evaluated(folder, brat, capsys, "--split", "test")
    assert told.rpartition("\n\nloss")[0] == report_of(folder)


def test_classes_of_texts_have_thresholds_from_devel(train, letters, capsys):
    columns = ["--text", "letter", "--label", "topics", "--separator", ";"]
    status, folder = train("documents", letters, *columns, "--max-length", "16")
    assert status == 0
    assert "19 / 2 / 3 to train" in capsys.readouterr().out
    assert "Thresholds:\nhead " in (folder / "report.txt").read_text()
    component, _ = load_component(folder / "model")
    assert component.is_multi_label
    assert component.labels == ("head", "heart", "ward")
    assert component.max_length == 16
    assert set(component.thresholds) == {"head", "heart", "ward"}
    # They are those of the model wherever it is used.
    told = evaluated(folder, letters, capsys, *columns, "--split", "test")
    assert told.rpartition("\n\nloss")[0] == report_of(folder)
    fixed = ["evaluate", "--model", str(folder / "model"), "--data", str(letters), *columns]
    assert main(fixed) == 2
    told = f"{letters} is the corpus of the run in {folder}, of which the model was trained on 19"
    assert told in capsys.readouterr().err


def test_texts_in_two_parts_are_told_or_refused(train, brat, capsys, caplog):
    again = ["--data", str(brat / "train"), str(brat / "train")]
    assert train("entities", brat / "train", *again)[0] == 2
    assert "are the same file or folder; expected another for each part" in capsys.readouterr().err
    assert train("entities", brat)[0] == 0
    told = "2 of 2 devel texts are also in train, 6 of 6 test texts are also in train, 2 of 6 test"
    assert told in caplog.text


def test_a_corpus_of_notes_is_split_again_as_in_training(train, tmp_path, capsys):
    notes = [each._replace(text=f"{each.text}. Day {n}.") for n, each in enumerate(NOTES)]
    write_brat(notes, tmp_path / "notes")
    _, folder = train("entities", tmp_path / "notes", "--sentences", "--seed", "3", "--epochs", "1")
    model = ["evaluate", "--model", str(folder / "model"), "--data", str(tmp_path / "notes")]
    told = evaluated(folder, tmp_path / "notes", capsys, "--sentences", "--split", "test")
    assert told.rpartition("\n\nloss")[0] == report_of(folder)
    assert main([*model, "--split", "test"]) == 2
    assert "read with the same options (--group, --sentences)" in capsys.readouterr().err
    assert main([*model, "--sentences"]) == 2
    assert "was trained on 18 of 24 texts; expected the part to" in capsys.readouterr().err
    checkpoint = str(last_checkpoint(folder / "checkpoints"))
    assert main([*model, "--sentences", "--model", checkpoint]) == 2


def test_a_run_goes_on_with_resume(train, brat, capsys):
    train("entities", brat, "--epochs", "1")
    _, folder = train("entities", brat, "--epochs", "2", "--resume")
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["epoch"] for line in lines] == [1, 2]
    capsys.readouterr()
    assert main(["inspect", str(folder), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert len({row["run"] for row in found["checkpoints"]}) == 1  # a new run would leave the old
    assert found["chosen"]["resume"]["finished"]
    assert len(found["chosen"]["history"]) == 2


@pytest.mark.parametrize(  # that are there, and more
    "epochs", [pytest.param("1", marks=pytest.mark.slow), "2"]
)
def test_resuming_with_another_test_part_is_refused(train, tmp_path, epochs, capsys):
    notes = [each._replace(text=f"{each.text} {number}") for number, each in enumerate(NOTES)]
    write_brat(notes, tmp_path / "notes")
    status, folder = train("entities", tmp_path / "notes", "--epochs", "1")
    assert status == 0
    report = (folder / "report.txt").read_text()
    again = ["--resume", "--epochs", epochs]
    assert train("entities", tmp_path / "notes", *again, "--seed", "1")[0] == 2
    assert "expected the 9 / 1 / 2 with seed 0 that it began with" in capsys.readouterr().err
    write_brat([NOTES[0]._replace(name="later")], tmp_path / "more")
    for file in (tmp_path / "more").iterdir():
        file.rename(tmp_path / "notes" / file.name)
    assert train("entities", tmp_path / "notes", *again)[0] == 2
    assert "use another --output" in capsys.readouterr().err
    assert (folder / "report.txt").read_text() == report


def test_the_settings_reach_the_run(train, brat, capsys):
    more = ["--precision", "bfloat16", "--seed", "5", "--scheme", "bilou", "--save-interval", "1"]
    _, folder = train("entities", brat, *more, "--weight-decay", "0", "--warmup", "0.5")
    capsys.readouterr()
    main(["inspect", str(last_checkpoint(folder / "checkpoints")), "--json"])
    found = json.loads(capsys.readouterr().out)
    settings = found["settings"]
    assert (settings["precision"], settings["save_interval_steps"]) == ("bfloat16", 1)
    assert (settings["weight_decay"], settings["warmup_steps"]) == (0, 0.5)
    assert (settings["learning_rate"], settings["batch_size"]) == (0.01, 4)
    assert found["seed"] == 5
    assert "L-Drug" in found["component"]["classes"]


def test_labels_that_training_lacks_are_told(train, tmp_path, capsys):
    other = NOTES[0]._replace(entities=(Entity("Device", 0, 3),), relations=())
    for name, notes in (("train", NOTES[:6]), ("devel", NOTES[6:8]), ("test", [other, NOTES[9]])):
        write_brat(notes, tmp_path / "notes" / name)
    assert train("entities", tmp_path / "notes", "--epochs", "1")[0] == 0
    assert "test has labels that train lacks, which count as missed: ['Device']" in (
        capsys.readouterr().out
    )


def test_entities_that_overlap_count_as_missed(train, tmp_path, capsys, caplog):
    doubled = [
        each._replace(entities=(*each.entities, each.entities[1]._replace(label="Symptom")))
        for each in NOTES
    ]
    for name, notes in (("train", doubled[:8]), ("dev", doubled[8:10]), ("test", doubled[6:])):
        write_brat(notes, tmp_path / "notes" / name)
    status, folder = train("entities", tmp_path / "notes")
    assert status == 0
    report = (folder / "report.txt").read_text()
    (row,) = (line.split() for line in report.splitlines()[:9] if line.startswith("Symptom"))
    assert row[-1] == "6"
    assert (
        "6 of 18 entities in 6 documents cannot be represented by tags and count as missed: "
        in (report)
    )
    assert "8 of 24 entities in 8 documents cannot be represented by tags" in caplog.text
    assert "8 / 2 / 6 to train" in capsys.readouterr().out


@pytest.mark.parametrize(
    "name", ["train.conll", pytest.param("train.jsonl", marks=pytest.mark.slow)]
)
def test_items_of_a_format_of_sentences_are_called_so(train, tmp_path, name):
    rows = [(each.text.split(), ["O", "B-Drug", "O", "O", "B-Sign"]) for each in NOTES]
    if name.endswith("conll"):
        sentences = ["\n".join(f"{w} {t}" for w, t in zip(*row, strict=True)) for row in rows]
        text = "\n\n".join(sentences)
    else:
        text = "\n".join(json.dumps({"tokens": w, "ner_tags": t}) for w, t in rows)
    (tmp_path / name).write_text(f"{text}\n")
    status, folder = train("entities", tmp_path / name, "--epochs", "1")
    assert status == 0
    told = "Test: 2 sentences, rule of conlleval, 95 % intervals by sentence:"
    assert (folder / "report.txt").read_text().startswith(told)


def test_rows_of_texts_and_entities_are_trained_on_as_documents(train, tmp_path):
    rows = [
        {"text": text, "entities": [each._asdict() for each in entities]}
        for text, entities, *_ in NOTES
    ]
    (tmp_path / "notes.jsonl").write_text("\n".join(map(json.dumps, rows)))
    status, folder = train("entities", tmp_path / "notes.jsonl", "--epochs", "1")
    assert status == 0
    told = "Test: 2 documents, rule of conlleval, 95 % intervals by document:"
    assert (folder / "report.txt").read_text().startswith(told)


def tables(folder, rows):
    """Write a table for each part, of texts, labels and patients."""
    folder.mkdir()
    for name, part in zip(("train", "devel", "test"), rows, strict=True):
        lines = [",".join(row) for row in [("text", "label", "patient"), *part]]
        (folder / f"{name}.csv").write_text("\n".join(lines))
    return folder


ROWS = [
    [(each.text, "ward" if number % 2 else "home", f"p{number}") for number, each in chosen]
    for chosen in (
        [*enumerate(NOTES)][:8],
        [*enumerate(NOTES)][8:10],
        [*enumerate(NOTES)][10:],
    )
]


def test_a_class_that_only_test_has_is_refused_before_training(train, tmp_path, capsys):
    other = [*ROWS[:2], [("no fever", "theatre", "p"), *ROWS[2]]]
    status, folder = train("documents", tables(tmp_path / "letters", other))
    assert status == 2
    told = capsys.readouterr().err
    assert "test cannot be reported on: the text " in told
    assert "has the label 'theatre'; expected one of ['home', 'ward']" in told
    assert not folder.exists()


def test_the_model_is_saved_before_the_report(train, tmp_path, monkeypatch):
    def fail(*arguments, **settings):
        raise OSError("no space left")

    monkeypatch.setattr(training, "report_texts", fail)
    status, folder = train("documents", tables(tmp_path / "letters", ROWS))
    assert status == 2
    assert load_component(folder / "model")[0].labels == ("home", "ward")


def test_texts_of_a_group_in_two_parts_are_refused(train, tmp_path, capsys):
    shared = [*ROWS[:2], [("no fever", "home", "p1"), *ROWS[2]]]
    data = tables(tmp_path / "letters", shared)
    assert train("documents", data, "--group", "patient")[0] == 2
    told = capsys.readouterr().err
    assert "1 of 12 groups have texts in two parts or more: 'p1' (1 in train, 1 in test)" in told


@pytest.mark.parametrize(
    ("task", "given", "owner"),
    [
        ("entities", "--group patient", "classes of texts"),
        ("entities", "--separator ;", "classes of texts"),
        ("entities", "--multi-label", "classes of texts"),
        ("entities", "--negatives 0", "relations"),
        ("relations", "--scheme bilou", "entities"),
        ("relations", "--label kind", "classes of texts"),
    ],
)
def test_arguments_of_another_task_are_refused(train, brat, capsys, task, given, owner):
    assert train(task, brat, *given.split())[0] == 2
    told = capsys.readouterr().err
    number = given.replace("0", "0.0")
    assert f"{number} is for {owner}, but the data are read for {task}: leave it out" in told


def test_data_that_cannot_be_used_are_refused(train, tmp_path, capsys):
    bare = [document._replace(relations=()) for document in NOTES[:4]]
    for name, notes in (("train", NOTES), ("devel", bare), ("test", NOTES)):
        write_brat(notes, tmp_path / "notes" / name)
    assert train("relations", tmp_path / "notes")[0] == 2
    assert "devel has 4 items without a single relation" in capsys.readouterr().err
    assert train("entities", tmp_path / "nothing")[0] == 2
    write_brat(NOTES[:2], tmp_path / "few")
    assert train("entities", tmp_path / "few")[0] == 2
    assert "there is none in test" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
