"""``python -m medjax evaluate``: the scores of a component on annotated data."""

import json

import pytest
import trained_folders

import medjax
from medjax.cli import main
from medjax.components import load_component
from medjax.metrics import ClassificationMetrics
from medjax.text.readers import FORMATS, TABLE_FORMATS, read_texts
from medjax.text.writers import write_brat, write_medkit_json

WORDS = trained_folders.WORDS.split()
TEXTS = [
    "no fever since the stent",
    " ".join(WORDS * 9),  # several windows
    "aspirin relieved her headache and cough",
    "chest pain",
    "her drug",
    "headache since the stent and cough",
]
MULTI = {"problem_type": "multi_label_classification"}


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Folders of a component of each kind."""
    root = tmp_path_factory.mktemp("models")
    encoder = trained_folders.write_encoder(root / "encoder")
    trained_folders.write_tagger(root / "tagger", encoder)
    trained_folders.write_classifier(root / "classifier", encoder)
    trained_folders.write_classifier(root / "several", encoder, **MULTI)
    trained_folders.write_relations(root / "relations", encoder)
    return root


@pytest.fixture(scope="module")
def tagged(models):
    """Documents with what the tagger finds, so that it scores 1 on them."""
    tagger, variables = load_component(models / "tagger")
    found = tagger.predict(variables, TEXTS)
    return [
        medjax.text.Document(text, entities, f"note {number}")
        for number, (text, entities) in enumerate(zip(TEXTS, found, strict=True))
    ]


@pytest.fixture
def evaluate(models, capsys):
    """Return a function that runs the command and returns its object of JSON."""

    def run(model, data, *arguments):
        fixed = ["--model", str(models / model), "--data", str(data), "--json"]
        assert main(["evaluate", *fixed, *arguments]) == 0
        return json.loads(capsys.readouterr().out)

    return run


@pytest.fixture
def table(tmp_path):
    file = tmp_path / "letters.csv"
    rows = [f"{text},surgery,ward {number // 3}" for number, text in enumerate(TEXTS)]
    file.write_text("\n".join(["text,label,patient", *rows]))
    return file


def test_a_tagger_is_right_about_what_it_has_found(evaluate, tagged, tmp_path, capsys, models):
    write_brat(tagged, tmp_path / "notes")
    found = evaluate("tagger", tmp_path / "notes")
    count = sum(len(document.entities) for document in tagged)
    assert found["scores"]["micro_f1-score"] == {"value": 1, "low": 1, "high": 1}
    assert found["scores"]["support"]["value"] == count
    assert found["loss"] > 0
    main(["evaluate", "--model", str(models / "tagger"), "--data", str(tmp_path / "notes")])
    text = capsys.readouterr().out
    assert text.startswith("6 documents, rule of conlleval, 95 % intervals by document:")
    assert "The same, strict iob2" in text
    assert "Confusion" in text


def test_entities_that_it_has_not_found_count_as_missed(evaluate, tagged, tmp_path):
    other = medjax.text.Entity("Disease", 0, 2)
    first = tagged[3]._replace(entities=(other, *(e for e in tagged[3].entities if e.start > 2)))
    changed = [*tagged[:3], first, *tagged[4:]]
    write_medkit_json(changed, tmp_path / "notes.jsonl")
    scores = evaluate("tagger", tmp_path / "notes.jsonl")["scores"]
    assert scores["Disease_recall"]["value"] == 0
    assert 0 < scores["micro_recall"]["low"] <= scores["micro_recall"]["value"] < 1


def test_entities_that_overlap_count_as_missed(evaluate, tagged, tmp_path, models, capsys):
    first = tagged[0].entities[0]
    twin = first._replace(label="Sign" if first.label == "Drug" else "Drug")
    changed = [tagged[0]._replace(entities=(*tagged[0].entities, twin)), *tagged[1:]]
    write_brat(changed, tmp_path / "notes")
    count = sum(len(document.entities) for document in tagged)
    scores = evaluate("tagger", tmp_path / "notes")["scores"]
    assert scores["support"]["value"] == count + 1
    assert scores["micro_recall"]["value"] == pytest.approx(count / (count + 1))
    main(["evaluate", "--model", str(models / "tagger"), "--data", str(tmp_path / "notes")])
    told = f"1 of {count + 1} entities in 6 documents cannot be represented by tags and count as"
    assert told in capsys.readouterr().out


def test_a_corpus_is_not_scored_with_what_was_trained_on(tagged, tmp_path, models, capsys):
    write_brat(tagged[:4], tmp_path / "corpus" / "train")
    write_brat(tagged[4:], tmp_path / "corpus" / "test")
    write_brat([tagged[0]._replace(name="test")], tmp_path / "corpus" / "test")
    arguments = ["evaluate", "--model", str(models / "tagger"), "--data"]
    assert main([*arguments, str(tmp_path / "corpus")]) == 2
    assert "has the parts train, test; expected the one to score on" in capsys.readouterr().err
    assert main([*arguments, str(tmp_path / "corpus"), "--split", "test"]) == 0
    assert capsys.readouterr().out.startswith("3 documents, ")
    assert main([*arguments, str(tmp_path / "corpus" / "test")]) == 0  # a note is called test


def test_sentences_of_columns_are_called_so(tmp_path, models, capsys):
    sentence = "no O\nfever B-Sign\n"
    (tmp_path / "corpus").mkdir()
    (tmp_path / "corpus" / "test.conll").write_text(f"{sentence}\n{sentence}")
    arguments = ["evaluate", "--model", str(models / "tagger"), "--split", "test"]
    assert main([*arguments, "--data", str(tmp_path / "corpus")]) == 0
    told = "2 sentences, rule of conlleval, 95 % intervals by sentence:"
    assert capsys.readouterr().out.startswith(told)


def test_sentences_are_units_if_asked_for(tagged, tmp_path, models, capsys):
    documents = [tagged[0]._replace(text=f"{tagged[0].text}. No fever.")]
    write_brat(documents, tmp_path / "notes")
    arguments = ["evaluate", "--model", str(models / "tagger"), "--data", str(tmp_path / "notes")]
    assert main([*arguments, "--sentences"]) == 0
    assert capsys.readouterr().out.startswith("2 sentences, ")
    assert main(arguments) == 0  # one unit, so there is nothing to resample
    assert capsys.readouterr().out.startswith("1 documents, rule of conlleval:")


def test_classes_of_texts_are_those_of_the_component(evaluate, models, table, capsys):
    classifier, variables = load_component(models / "classifier")
    metrics = ClassificationMetrics(classifier.labels)
    config = medjax.TrainerConfig("unused", batch_size=16)
    expected = medjax.evaluate(
        classifier.component, variables, config, read_texts(table), metrics_computer=metrics
    )
    found = evaluate("classifier", table)
    assert found["loss"] == pytest.approx(expected["loss"])
    values = {name: score["value"] for name, score in found["scores"].items()}
    assert values["accuracy"] == pytest.approx(expected["accuracy"])
    assert values["brier-score"] == pytest.approx(expected["brier-score"])
    main(["evaluate", "--model", str(models / "classifier"), "--data", str(table)])
    assert "Confusion, true by row" in capsys.readouterr().out


def test_texts_of_a_group_are_resampled_together(evaluate, table):
    alone = evaluate("classifier", table)["scores"]["brier-score"]
    grouped = evaluate("classifier", table, "--group", "patient")["scores"]["brier-score"]
    assert alone["value"] == pytest.approx(grouped["value"])
    assert alone["low"] != grouped["low"]


def test_the_threshold_decides_about_several_classes(evaluate, tmp_path):
    file = tmp_path / "letters.tsv"
    rows = [f"{text}\tsurgery;other" for text in TEXTS]
    file.write_text("\n".join(["note\ttopics", *rows]))
    columns = ["--text", "note", "--label", "topics", "--separator", ";"]
    recalls = [
        evaluate("several", file, *columns, "--threshold", threshold)["scores"]["micro_recall"]
        for threshold in ("0", "1")
    ]
    assert [recall["value"] for recall in recalls] == [1, 0]


def test_relations_are_right_about_what_was_found(evaluate, models, tagged, tmp_path):
    model, variables = load_component(models / "relations")
    short = [document for document in tagged if len(document.text) < 100]
    related = [
        document._replace(relations=relations)
        for document, relations in zip(short, model.predict(variables, short), strict=True)
    ]
    assert any(document.relations for document in related)
    write_brat(related, tmp_path / "notes")
    scores = evaluate("relations", tmp_path / "notes")["scores"]
    assert scores["micro_f1-score"]["value"] == 1


def test_a_part_of_the_data_is_chosen(evaluate, tagged, tmp_path, models, capsys):
    write_brat(tagged[:4], tmp_path / "corpus" / "train")
    write_brat(tagged[4:], tmp_path / "corpus" / "dev")
    count = sum(len(document.entities) for document in tagged[4:])
    found = evaluate("tagger", tmp_path / "corpus", "--split", "devel")
    assert found["scores"]["support"]["value"] == count
    fixed = ["--model", str(models / "tagger"), "--data", str(tmp_path / "corpus")]
    assert main(["evaluate", *fixed, "--split", "test"]) == 2
    assert "--split is 'test', but" in capsys.readouterr().err


def test_the_format_of_the_data_can_be_given(evaluate, tagged, table, tmp_path, models, capsys):
    write_medkit_json(tagged, tmp_path / "notes.spacy")
    found = evaluate("tagger", tmp_path / "notes.spacy", "--input-format", "medkit")
    assert found["scores"]["micro_f1-score"]["value"] == 1
    found = evaluate("classifier", table)
    other = table.rename(table.with_suffix(".txt"))
    assert evaluate("classifier", other, "--input-format", "csv") == found
    fixed = ["--model", str(models / "tagger"), "--data", str(other)]
    with pytest.raises(SystemExit):
        main(["evaluate", *fixed, "--input-format", "excel"])
    told = capsys.readouterr().err
    assert all(name in told for name in ("excel", *FORMATS, *TABLE_FORMATS))


@pytest.mark.parametrize(
    ("model", "arguments", "told"),
    [
        ("tagger", [], "without a single entity"),
        ("relations", [], "without a single relation"),
        ("tagger", ["--threshold", "0.3"], "--threshold is 0.3"),
        ("tagger", ["--group", "patient"], "--group patient is for classes of texts, but the data"),
        ("relations", ["--text", "note"], "--text note is for classes of texts, but the data are"),
        (
            "relations",
            ["--sentences"],
            "--sentences is for entities, but the data are read for",
        ),
        ("classifier", [], "expected 'text' among them"),
        ("tagger", ["--input-format", "csv"], "the format is 'csv', expected one of 'brat', "),
        ("classifier", ["--input-format", "brat"], "the format is 'brat', expected one of 'csv', "),
    ],
)
def test_what_cannot_be_scored_is_refused(models, tmp_path, model, arguments, told, capsys):
    plain = [medjax.text.Document(text, (), str(n)) for n, text in enumerate(TEXTS)]
    write_medkit_json(plain, tmp_path / "notes.jsonl")
    fixed = ["--model", str(models / model), "--data", str(tmp_path / "notes.jsonl")]
    assert main(["evaluate", *fixed, *arguments]) == 2
    assert told in capsys.readouterr().err
