"""RelationClassification: candidates, marks, draws of negatives, scores of all relations."""

import json

import jax
import numpy as np
import pytest
import tokenizers
import torch
import transformers
from tiny import config, mlp

import medjax
from medjax import Options
from medjax.components import NO_RELATION, RelationClassification
from medjax.components.relation_data import (
    PairReader,
    Stratum,
    choose_marks,
    expand_pairs,
    marked_text,
)
from medjax.metrics import PairGold, RelationMetrics, bootstrap, entity_scores
from medjax.models import Tokenizer
from medjax.text import Document, Entity, Relation, relation_kinds

KINDS = [("Drug", "Sign")]


def document(number=0, gap=" relieved her "):
    """Return a document with a drug and two signs, the first of which it relieved."""
    text = f"Note {number}. Aspirin{gap}headache, not the cough."
    drug, first, second = text.index("Aspirin"), text.index("headache"), text.index("cough")
    entities = (
        Entity("Drug", drug, drug + 7),
        Entity("Sign", first, first + 8),
        Entity("Sign", second, second + 5),
    )
    return Document(text, entities, f"note {number}", (Relation("Relieves", 0, 1),))


DOCUMENTS = [document(number) for number in range(6)]


@pytest.fixture
def classifier(tiny_folder):
    return RelationClassification.from_pretrained(
        tiny_folder, ["Relieves"], KINDS, max_length=64, context=20
    )


def pairs_of(expanded):
    return [(pair.position, pair.head, pair.tail, pair.label) for pair in expanded.items]


def test_candidates_are_pairs_of_the_kinds_that_are_near(classifier):
    far = document(1, gap=" " * 400)
    expanded = classifier.expand([DOCUMENTS[0], far], training=False)
    assert pairs_of(expanded) == [(0, 0, 1, "Relieves"), (0, 0, 2, None), (1, None, None, None)]
    assert list(expanded.origins) == [0, 0, 1]
    (note,) = expanded.notes
    assert note.startswith("1 of 2 annotated relations (50.0%) in 2 documents are no candidates")
    assert "too far apart: 1" in note
    assert len(classifier.expand([DOCUMENTS[0], far], training=True)) == 2


@pytest.mark.parametrize(
    ("relations", "reason"),
    [
        ((Relation("Relieves", 1, 0),), "another kind of pair"),
        ((Relation("Causes", 0, 1),), "an unknown label"),
        ((Relation("Relieves", 0, 1), Relation("Prevents", 0, 1)), "another relation of the same"),
    ],
)
def test_relations_that_are_no_candidates_count_as_missed(relations, reason, tiny_folder):
    classifier = RelationClassification.from_pretrained(
        tiny_folder, ["Prevents", "Relieves"], KINDS, max_length=64
    )
    expanded = classifier.expand([DOCUMENTS[0]._replace(relations=relations)], training=False)
    assert f"{reason}" in expanded.notes[0]
    metrics, columns = RelationMetrics(classifier.classes), {"pair": [], "y_pred": []}
    for pair in expanded.items:
        columns["pair"].append(classifier.preprocess(pair)["pair"])
        columns["y_pred"].append(pair.label or NO_RELATION)
    scores = metrics.compute(columns)
    assert scores["support"] == len(relations)
    assert scores["micro_recall"] == (len(relations) - 1) / len(relations)
    assert scores["micro_precision"] == (1.0 if len(relations) > 1 else 0.0)


def test_in_training_unknown_relations_are_refused(classifier):
    unknown = DOCUMENTS[0]._replace(relations=(Relation("Causes", 0, 1),))
    with pytest.raises(ValueError, match=r"note 0' has the relation 'Causes'; expected one of"):
        classifier.expand([unknown])
    outside = DOCUMENTS[0]._replace(relations=(Relation("Relieves", 0, 3),))
    with pytest.raises(ValueError, match="expected places below 3"):
        classifier.expand([outside])
    with pytest.raises(ValueError, match="no two entities of 1 documents are a candidate"):
        classifier.expand([Document("Nothing.")])


@pytest.mark.parametrize(
    ("head", "tail", "context", "expected"),
    [
        ((0, 7), (21, 29), 99, "@ * A * Aspirin @ relieved her # ^ B ^ headache # today."),
        ((21, 29), (0, 7), 99, "# ^ B ^ Aspirin # relieved her @ * A * headache @ today."),
        ((8, 16), (17, 20), 1, "Aspirin @ * A * relieved @ # ^ B ^ her # headache …"),
        ((0, 7), (21, 29), 2, "@ * A * Aspirin @ r … r # ^ B ^ headache # today."),
        ((0, 16), (8, 16), 1, "@ * A * Aspirin # ^ B ^ relieved # @ her …"),
        ((8, 16), (0, 16), 1, "# ^ B ^ Aspirin @ * A * relieved @ # her …"),
        ((0, 7), (0, 7), 1, "@ * A * # ^ B ^ Aspirin # @ relieved …"),
        ((0, 16), (8, 20), 1, "@ * A * Aspirin # ^ B ^ relieved @ her # headache …"),
    ],
)
def test_marks(head, tail, context, expected):
    text = "Aspirin relieved her headache today."
    assert marked_text(text, Entity("A", *head), Entity("B", *tail), context) == expected


def test_rows_that_are_too_long_get_less_context(tiny_folder):
    words = " word" * 300
    long = document(0)
    shift = len(words) + 1
    text = f"{words} {long.text}{words}"
    entities = tuple(e._replace(start=e.start + shift, end=e.end + shift) for e in long.entities)
    moved = long._replace(text=text, entities=entities)
    classifier = RelationClassification.from_pretrained(
        tiny_folder, ["Relieves"], KINDS, max_length=40, context=1000
    )
    (first, _) = classifier.expand([moved]).items
    ids = classifier.preprocess(first)["input_ids"]
    assert len(ids) <= 40
    head, of_head, tail, of_tail = classifier.marks
    read = classifier.tokenizer.backend.decode(ids).replace(" ##", "")
    assert f"{head} {of_head} drug {of_head} aspirin {head}" in read
    assert f"{tail} {of_tail} sign {of_tail} headache {tail}" in read


def test_marks_are_characters_that_the_tokenizer_tells_apart(classifier):
    backend = classifier.tokenizer.backend
    assert len(set(classifier.marks)) == 4
    assert all(backend.token_to_id(mark) is not None for mark in classifier.marks)
    few = tokenizers.Tokenizer(tokenizers.models.WordLevel({"[UNK]": 0, "@": 1, "x": 2}, "[UNK]"))
    few.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    with pytest.raises(ValueError, match=r"knows only 1 of the characters .*expected at least 4"):
        choose_marks(Tokenizer(few, 0, 0, {}))


def test_negatives_depend_on_seed_epoch_and_item(tiny_folder):
    made = RelationClassification.from_pretrained(
        tiny_folder, ["Relieves"], [*KINDS, ("Sign", "Sign")], negatives=1.0, max_length=64
    )
    expanded = made.expand(DOCUMENTS)
    strata = [item for item in expanded.items if isinstance(item, Stratum)]
    assert len(expanded) == 2 * len(strata) == 12  # of 3 candidates without a relation each
    assert sorted(pair.position for s in strata for pair in s.pairs) == sorted([*range(6)] * 3)

    def drawn(seed, epoch):
        settings = config("unused", batch_size=4)
        loader = medjax.get_dataloader(
            DOCUMENTS, made.component, settings, shuffle=True, seed=seed, options=Options()
        )
        rows = [row for batch in loader.batches(epoch) for row in batch.host["pair"]]
        return sorted(row[:2] for row in rows if row[2] is None)

    assert drawn(1, 1) == drawn(1, 1)
    assert len({str(drawn(seed, epoch)) for seed in (1, 2) for epoch in (1, 2, 3)}) > 3
    assert len(made.expand(DOCUMENTS, training=False)) == 24


def test_negatives_are_drawn_by_the_weights_of_their_documents():
    reader = PairReader(("Relieves",), (*KINDS, ("Sign", "Sign")), 300)

    def expanded(weights, negatives=1.0):
        documents = medjax.Sampled(DOCUMENTS, weights)
        component = mlp()._replace(
            expand=lambda data, *, training: expand_pairs(
                data, reader, training=training, negatives=negatives
            )
        )
        return medjax.data.expand(documents, component, training=True)

    # Of documents of weight 0 nothing is drawn, and none of their relations asks for a negative.
    some = expanded([1, 0, 0, 2, 0, 0])
    strata = [
        ({pair.position for pair in item.pairs}, weight)
        for item, weight in zip(some.items, some.weights, strict=True)
        if isinstance(item, Stratum)
    ]
    assert strata == [({0}, pytest.approx(1 / 3)), ({3}, pytest.approx(2 / 3))]
    # Without another weight the strata are those of documents without weights.
    plain = expand_pairs(DOCUMENTS, reader, training=True, negatives=1.0)

    def places(each):
        return [(pair.position, pair.head, pair.tail) for pair in each.pairs]

    found = [places(item) for item in expanded([1] * 6).items if isinstance(item, Stratum)]
    assert found == [places(item) for item in plain.items if isinstance(item, Stratum)]
    # A stratum of documents of several weights.
    (*_, stratum) = expanded([1, 3, 3, 3, 3, 3], negatives=1 / 6).items
    assert len(stratum.pairs) == 18
    assert stratum.position != 0
    rng = np.random.default_rng(0)
    drawn = [stratum.draw(rng).position for _ in range(4000)]
    counts = np.bincount(drawn) / 4000
    assert counts == pytest.approx([1 / 16, *[3 / 16] * 5], abs=0.03)


def test_training_saving_and_prediction(tiny_folder, tmp_path):
    # Which pair is related can be told from the marked label.
    documents = [
        each._replace(entities=(*each.entities[:2], each.entities[2]._replace(label="Test")))
        for each in DOCUMENTS
    ]
    classifier = RelationClassification.from_pretrained(
        tiny_folder, ["Relieves"], [*KINDS, ("Drug", "Test")], max_length=64, context=20
    )
    metrics = RelationMetrics(classifier.classes)
    # It learns in 10 to 13 epochs with any seed.
    settings = config(
        tmp_path, nb_training_epochs=25, learning_rate=3e-3, batch_size=4, checkpoint_period=25
    )
    result = medjax.train(
        classifier.component, settings, documents, documents[:2], metrics_computer=metrics
    )
    assert result.history[-1]["eval"]["micro_f1-score"] == 1.0
    assert result.history[-1]["eval"]["support"] == 2
    folder = result.last_checkpoint
    loaded = RelationClassification.from_pretrained(folder)
    assert (loaded.labels, loaded.kinds) == (classifier.labels, classifier.kinds)
    assert (loaded.reach, loaded.context) == (300, 20)
    found = loaded.predict(loaded.load(folder), documents[3:5])
    assert [[r[:3] for r in relations] for relations in found] == [[("Relieves", 0, 1)]] * 2
    assert all(0.5 < r.score <= 1 for relations in found for r in relations)
    model = transformers.AutoModelForSequenceClassification.from_pretrained(folder)
    assert list(model.config.id2label.values()) == [NO_RELATION, "Relieves"]
    (row, *_) = loaded.expand(documents[:1]).items
    ids = np.array([loaded.preprocess(row)["input_ids"]])
    expected = model(torch.tensor(ids)).logits
    actual = loaded.model.apply(
        {"params": loaded.load(folder)["params"]}, ids, np.ones_like(ids), deterministic=True
    )
    np.testing.assert_allclose(actual, expected.detach().numpy(), rtol=0, atol=1e-5)


def test_labels_asked_for_in_another_order_have_the_weights_of_the_checkpoint(
    tiny_folder, tmp_path
):
    trained = RelationClassification.from_pretrained(tiny_folder, ["Causes", "Relieves"], KINDS)
    weights = trained.init(jax.random.key(0))
    weights["params"]["classifier"]["bias"] = np.array([0.0, 1.0, 2.0], np.float32)
    trained.save(tmp_path, weights)
    other = RelationClassification.from_pretrained(tmp_path, ["Relieves", "Causes"])
    assert other.classes == (NO_RELATION, "Relieves", "Causes")
    reordered = other.init(jax.random.key(1))["params"]["classifier"]
    for name, values in weights["params"]["classifier"].items():
        np.testing.assert_array_equal(reordered[name], np.asarray(values)[..., [0, 2, 1]])


def test_entities_of_the_same_offsets_are_told_apart(tiny_folder):
    twice = (Entity("Chemical", 0, 7), Entity("Drug", 0, 7), Entity("Sign", 17, 21))
    related = Document("Aspirin relieved pain", twice, "", (Relation("Relieves", 1, 2),))
    classifier = RelationClassification.from_pretrained(
        tiny_folder, ["Relieves"], [*KINDS, ("Chemical", "Sign")], max_length=64
    )
    gold = [
        classifier.preprocess(pair)["pair"]
        for pair in classifier.expand([related], training=False).items
    ]
    metrics = RelationMetrics(classifier.classes)
    wrong = metrics.compute({"pair": gold, "y_pred": ["Relieves", NO_RELATION]})
    both = metrics.compute({"pair": gold, "y_pred": ["Relieves", "Relieves"]})
    assert (wrong["micro_precision"], wrong["micro_recall"]) == (0.0, 0.0)
    assert (both["micro_precision"], both["micro_recall"]) == (0.5, 1.0)


@pytest.mark.slow  # half a minute
def test_cross_validation_scores_each_document_by_its_own_relations(classifier, tmp_path):
    # Documents of the same place in two folds have different relations, at the same offsets.
    documents = [
        each._replace(relations=each.relations[: n % 2]) for n, each in enumerate(DOCUMENTS)
    ]
    result = medjax.cross_validate(
        classifier.component,
        config(tmp_path, nb_training_epochs=1, batch_size=4, seed=0),
        documents,
        RelationMetrics(classifier.classes),
        nb_folds=3,
        groups=[n // 2 for n in range(6)],
        callback=[],
    )
    assert [len(fold) for fold in result.folds] == [2, 2, 2]
    assert [row[0] for row in result.columns["pair"]] != sorted([*range(2)] * 6)
    y_true, _ = RelationMetrics(classifier.classes).relations(result.columns)
    assert [len(relations) for relations in y_true] == [0, 1] * 3
    assert result.intervals["support"].value == 3


def test_scores_are_those_of_a_count_by_hand_and_have_intervals():
    metrics = RelationMetrics((NO_RELATION, "a", "b"))
    rng = np.random.default_rng(0)
    columns = {"pair": [], "y_pred": []}
    true, predicted = [], []
    for document_number in rng.permutation(20):
        true.append([])
        predicted.append([])
        for tail in range(3):
            label, guess = rng.choice([NO_RELATION, "a", "b"], 2)
            missed = [("a", 0, 90)] if tail == 0 and document_number % 4 == 0 else []
            annotated = None if label == NO_RELATION else str(label)
            gold = PairGold(int(document_number), (0, tail), annotated, missed)
            columns["pair"].append(gold)
            columns["y_pred"].append(str(guess))
            true[-1] += [("a", 0, 90)] * len(missed)
            true[-1] += [(label, 0, tail)] if label != NO_RELATION else []
            predicted[-1] += [(guess, 0, tail)] if guess != NO_RELATION else []
    scores = metrics.compute(columns)
    assert scores == entity_scores(true, predicted)
    # As they come back from a checkpoint.
    assert metrics.compute(json.loads(json.dumps(columns))) == scores
    interval = bootstrap(metrics, columns, nb_resamples=200)["micro_f1-score"]
    assert interval.low < scores["micro_f1-score"] == interval.value < interval.high


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"labels": [NO_RELATION]}, "labels contain 'no relation'"),
        ({"labels": [], "kinds": []}, r"labels is \[\]; expected kinds of relations"),
        ({"labels": "Relieves"}, "labels is 'Relieves'; expected kinds of relations"),
        ({"kinds": []}, r"kinds is \(\); expected pairs of labels"),
        ({"kinds": ["ab", "c"]}, "kinds is .*expected pairs of labels"),
        ({"reach": -1}, "reach is -1"),
        ({"negatives": -0.5}, "negatives is -0.5"),
        ({"labels": None, "kinds": None}, "is not a classifier of relations; pass labels"),
    ],
)
def test_bad_settings_are_named(wrong, message, tiny_folder):
    arguments = {"labels": ["Relieves"], "kinds": KINDS, "max_length": 64, **wrong}
    with pytest.raises(ValueError, match=message):
        RelationClassification.from_pretrained(tiny_folder, **arguments)


def test_the_kinds_of_a_corpus():
    assert relation_kinds(DOCUMENTS) == (["Relieves"], KINDS)


def test_text_without_spaces_is_cut_to_the_context():
    text = "字" * 3000 + "薬" + "字" * 20 + "熱" + "字" * 3000
    drug, sign = Entity("A", 3000, 3001), Entity("B", 3021, 3022)
    marked = marked_text(text, drug, sign, context=100)
    assert marked.startswith("… 字")
    assert marked.endswith("字 …")
    assert 240 < len(marked) < 280


def test_a_pair_that_does_not_fit_is_refused(tiny_folder):
    classifier = RelationClassification.from_pretrained(
        tiny_folder, ["Relieves"], KINDS, max_length=12
    )
    (first, *_) = classifier.expand(DOCUMENTS).items
    message = r"note 0' has Drug at 8 to 15 and Sign at 29 to 37, which take \d+ tokens .*at most"
    with pytest.raises(ValueError, match=message):
        classifier.preprocess(first)
