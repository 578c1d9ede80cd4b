"""Taggers of entities that overlap: a sequence of tags for each label."""

import jax
import numpy as np
import pytest
from tiny import config

import medjax
from medjax.components import ClassificationLoss, TokenClassification
from medjax.metrics import SpanMetrics, bootstrap, entity_scores
from medjax.text import Document, Entity, without_overlaps
from medjax.text.tagging import layered_tag_names, tag_layers

LABELS = ["Body", "Disease"]
TEXT = "Pain of the left knee and chronic heart failure with fever."


def entity(label, text):
    start = TEXT.index(text)
    return Entity(label, start, start + len(text))


NESTED = Document(
    TEXT,
    (
        entity("Disease", "Pain of the left knee"),
        entity("Body", "left knee"),
        entity("Disease", "chronic heart failure"),
        entity("Body", "heart"),
        entity("Disease", "fever"),
    ),
    "nested",
)
CROSSING = Document(
    TEXT, (entity("Disease", "Pain of the left"), entity("Body", "left knee")), "crossing"
)
SAME = Document(
    TEXT, (entity("Disease", "chronic heart failure"), entity("Disease", "heart failure")), "same"
)


@pytest.fixture(params=[64, 14])
def tagger(request, tiny_folder):
    return TokenClassification.from_pretrained(
        tiny_folder, LABELS, overlapping=True, max_length=request.param
    )


def offsets(entities):
    return sorted(tuple(each[:3]) for each in entities)


def perfect(tagger, documents):
    """Return the columns that an evaluation with perfect tags collects."""
    metrics = SpanMetrics(tagger.tags)
    examples = [tagger.preprocess(item) for item in tagger.expand(documents).items]
    batch = tagger.collate(examples)
    return metrics, metrics.prepare_batch({"predictions": batch["labels"]}, batch)


def test_perfect_tags_give_all_entities(tagger):
    documents = [NESTED, CROSSING]
    metrics, columns = perfect(tagger, documents)
    true, predicted = metrics.entities(columns)
    assert list(map(offsets, true)) == [offsets(each.entities) for each in documents]
    assert list(map(offsets, predicted)) == list(map(offsets, true))
    scores = metrics.compute(columns)
    assert (scores["micro_f1-score"], scores["support"], scores["accuracy"]) == (1.0, 7, 1.0)
    intervals = bootstrap(metrics, columns, nb_resamples=50)
    assert intervals["micro_f1-score"].value == 1.0
    assert tagger.unreachable(documents) == []


def test_entities_of_one_label_that_overlap_count_as_missed(tagger):
    (missed,) = tagger.unreachable([SAME])
    assert (missed.text, missed.reason) == ("heart failure", "share a word with another")
    (note,) = tagger.expand([SAME]).notes
    assert note.startswith("1 of 2 entities in 1 documents cannot be represented")
    metrics, columns = perfect(tagger, [SAME])
    scores = metrics.compute(columns)
    assert (scores["micro_precision"], scores["micro_recall"]) == (1.0, 0.5)


def test_an_entity_that_is_annotated_twice_counts_once(tagger):
    twice = NESTED._replace(entities=(*NESTED.entities, NESTED.entities[0], NESTED.entities[-1]))
    assert tagger.unreachable([twice]) == []
    told = "2 entities in 1 documents are annotated twice, with the same label, start and end; they"
    (note,) = tagger.expand([twice]).notes
    assert note.startswith(told)
    metrics, columns = perfect(tagger, [twice])
    scores = metrics.compute(columns)
    assert (scores["micro_f1-score"], scores["support"]) == (1.0, len(NESTED.entities))


def test_without_a_sequence_for_each_label_overlaps_are_missed(tiny_folder):
    flat = TokenClassification.from_pretrained(tiny_folder, LABELS)
    assert len(flat.unreachable([NESTED, CROSSING])) == 3


def test_of_overlaps_in_one_sequence_of_tags_the_longest_is_learned(tiny_folder):
    flat = TokenClassification.from_pretrained(tiny_folder, LABELS)
    metrics, columns = perfect(flat, [NESTED, CROSSING])
    _, predicted = metrics.entities(columns)
    longest = [without_overlaps(each.entities)[0] for each in (NESTED, CROSSING)]
    assert list(map(offsets, predicted)) == list(map(offsets, longest))
    missed = [(each.text, each.reason) for each in flat.unreachable([NESTED, CROSSING])]
    shared = "share a word with another"
    assert missed == [("left knee", shared), ("heart", shared), ("left knee", shared)]


def test_the_loss_is_the_mean_over_tokens_and_labels(tiny_folder):
    loss = ClassificationLoss(class_weights={"O-Body": 0.5, "B-Disease": 3.0})
    tagger = TokenClassification.from_pretrained(tiny_folder, LABELS, overlapping=True, loss=loss)
    variables = tagger.init(jax.random.key(0))
    batch = tagger.collate([tagger.preprocess(NESTED), tagger.preprocess(CROSSING)])
    batch["row_mask"] = np.array([1.0, 0.0], np.float32)
    outputs, mean, _ = tagger.forward(
        variables, batch, jax.random.key(0), return_loss=True, eval_mode=True
    )
    logits = np.asarray(outputs["logits"][0], np.float64)
    total = weight = 0.0
    for number in range(2):
        logs = logits[:, 3 * number : 3 * number + 3]
        logs = logs - np.log(np.exp(logs).sum(-1, keepdims=True))
        for token, label in enumerate(batch["labels"][0, :, number]):
            if label >= 0:
                name = tagger.tags[3 * number + label]
                w = {"O-Body": 0.5, "B-Disease": 3.0}.get(name, 1.0)
                total, weight = total - w * logs[token, label], weight + w
    assert float(mean.weight) == pytest.approx(weight)
    assert float(mean.compute()) == pytest.approx(total / weight, rel=1e-5)
    assert outputs["predictions"].shape == batch["labels"].shape


def test_a_single_label_is_evaluated_like_any_other(tiny_folder, tmp_path):
    tagger = TokenClassification.from_pretrained(tiny_folder, ["Disease"], overlapping=True)
    (entity,) = (each for each in NESTED.entities if each.start == 0)
    documents = [NESTED._replace(entities=(entity,))] * 2
    metrics = SpanMetrics(tagger.tags)
    variables = tagger.init(jax.random.key(0))
    scores = medjax.evaluate(
        tagger.component, variables, config(tmp_path), documents, metrics_computer=metrics
    )
    assert scores["support"] == 2
    found = tagger.predict(variables, [TEXT] * 2)
    same = entity_scores([document.entities for document in documents], found)
    assert same["micro_precision"] == scores["micro_precision"]
    _, columns = perfect(tagger, documents)
    assert metrics.compute(columns)["micro_f1-score"] == 1.0


def test_training_saving_and_prediction(tiny_folder, tmp_path):
    tagger = TokenClassification.from_pretrained(tiny_folder, LABELS, overlapping=True)
    metrics = SpanMetrics(tagger.tags)
    settings = config(tmp_path, nb_training_epochs=12, learning_rate=5e-3, batch_size=4)
    result = medjax.train(
        tagger.component, settings, [NESTED] * 8, [NESTED], metrics_computer=metrics
    )
    assert result.history[-1]["eval"]["micro_f1-score"] == 1.0
    loaded = TokenClassification.from_pretrained(result.last_checkpoint)
    assert (loaded.tags, loaded.tagging_scheme) == (tagger.tags, "iob2")
    (found,) = loaded.predict(loaded.load(result.last_checkpoint), [NESTED.text])
    assert offsets(found) == offsets(NESTED.entities)
    assert list(found) == sorted(found, key=lambda each: (each.start, each.end, each.label))
    assert entity_scores([NESTED.entities], [found])["micro_f1-score"] == 1.0


def test_tags_of_each_label():
    tags = layered_tag_names(LABELS, "bilou")
    assert [layer[0] for layer in tag_layers(tags)] == ["O", "O"]
    assert len(tags) == 10
    for wrong in (("O-Body", "B-Body", "B-Disease"), ("O-Body", "B-Body", "O-Disease")):
        with pytest.raises(ValueError, match="expected"):
            tag_layers(wrong)
