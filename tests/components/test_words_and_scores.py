"""With every tokenizer, perfect tags give exact offsets, and evaluate agrees with predict."""

import threading

import jax
import numpy as np
import pytest
from tokenizer_families import CASES, FAMILIES, document, generated, make_tokenizer

import medjax
from medjax.components import TokenClassification
from medjax.metrics import entity_scores
from medjax.text import Document, Entity

TAGS = ("O", "B-Finding", "I-Finding")
DOCUMENTS = [*CASES, *generated(40)]
LONG = generated(4, seed=3, findings=30)


@pytest.fixture(scope="module", params=FAMILIES)
def tokenizer(request):
    return make_tokenizer(request.param)


class Oracle:
    """Replaces the model: returns the labels of each window, some of them wrong on request."""

    def __init__(self, tagger, documents, *, wrong=0.0):
        rng = np.random.RandomState(0)
        self.labels = {}
        for item in tagger.expand(documents).items:
            example = tagger.preprocess(item)
            labels = np.array(example["labels"])
            # Tokens that do not count are tagged as entities, so that reading them would show.
            labels[labels == -100] = 1
            mistaken = rng.random_sample(len(labels)) < wrong
            labels[mistaken] = rng.randint(0, 3, mistaken.sum())
            self.labels[tuple(example["input_ids"])] = labels

    def logits(self, ids, mask):
        logits = np.zeros((*ids.shape, len(TAGS)), np.float32)
        for row, (numbers, real) in enumerate(zip(np.asarray(ids), np.asarray(mask), strict=True)):
            labels = self.labels[tuple(numbers[: real.sum()].tolist())]
            logits[row, np.arange(len(labels)), labels] = 5.0
        return logits

    def apply(self, variables, ids, mask, **_):
        shape = jax.ShapeDtypeStruct((*ids.shape, len(TAGS)), np.float32)
        return jax.pure_callback(self.logits, shape, ids, mask)


def perfect(tokenizer, documents, *, wrong=0.0, **options):
    """Return a tagger whose model is an oracle."""
    tagger = TokenClassification(None, tokenizer, TAGS, **options)
    oracle = Oracle(tagger, documents, wrong=wrong)
    return TokenClassification(oracle, tokenizer, TAGS, **options)


def ends_inside_a_token(tokenizer, gold, entity):
    """Return whether an entity starts or ends inside a token, by the raw offsets alone."""
    (encoding,) = tokenizer.encode([gold.text])
    for start, end in encoding.offsets:
        covered = gold.text[start:end]
        first, stop = end - len(covered.lstrip()), start + len(covered.rstrip())
        if any(first < place < stop for place in entity[1:3]):
            return True
    return False


def entities_found_by(tagger, documents):
    predicted = tagger.predict({"params": {}}, [gold.text for gold in documents])
    return [[entity[:3] for entity in entities] for entities in predicted]


@pytest.mark.parametrize("tag_subtokens", [False, True])
@pytest.mark.parametrize("max_length", [512, 24])
def test_perfect_tags_give_exact_offsets(tokenizer, tag_subtokens, max_length):
    tagger = perfect(tokenizer, DOCUMENTS, tag_subtokens=tag_subtokens, max_length=max_length)
    predicted = entities_found_by(tagger, DOCUMENTS)
    nb_inside, missed = 0, set()
    for position, (gold, entities) in enumerate(zip(DOCUMENTS, predicted, strict=True)):
        for entity in gold.entities:
            if ends_inside_a_token(tokenizer, gold, entity):
                nb_inside += 1
            else:
                assert entity[:3] in entities, gold.text[entity.start : entity.end]
            if entity[:3] not in entities:
                missed.add((position, entity))
    assert {(lost.position, lost.entity) for lost in tagger.unreachable(DOCUMENTS)} == missed
    assert nb_inside < 0.1 * sum(len(gold.entities) for gold in DOCUMENTS)


@pytest.mark.parametrize("tag_subtokens", [False, True])
@pytest.mark.parametrize("max_length", [512, 24])
def test_evaluate_reports_the_f1_of_what_predict_finds(tokenizer, tag_subtokens, max_length):
    documents = [*DOCUMENTS[:20], *LONG]
    tagger = perfect(
        tokenizer, documents, wrong=0.2, tag_subtokens=tag_subtokens, max_length=max_length
    )
    reported = medjax.evaluate(
        tagger.component,
        {"params": {}},
        medjax.TrainerConfig("unused", batch_size=8),
        documents,
        metrics_computer=medjax.SpanMetrics(TAGS),
        options=medjax.Options(max_shapes=64),
    )
    predicted = entities_found_by(tagger, documents)
    expected = entity_scores([document.entities for document in documents], predicted)
    assert 0.2 < expected["micro_f1-score"] < 0.95
    assert {name: reported[name] for name in expected} == expected
    assert reported["support"] == sum(len(gold.entities) for gold in documents)


def test_entities_that_no_tags_can_represent_are_missed_and_the_user_is_warned(caplog):
    tokenizer = make_tokenizer("Metaspace BPE")
    documents = [
        document("HTA puis AVC", ["HTA", "AVC"], "well"),
        Document("antidiabétique", (Entity("Finding", 4, 11),), "inside"),
        Document("HTA AVC", (Entity("Finding", 0, 7), Entity("Finding", 4, 7)), "shared"),
        Document("a \u200b", (Entity("Finding", 2, 3),), "no word"),
    ]
    tagger = perfect(tokenizer, documents)
    reasons = {(lost.document, lost.text): lost.reason for lost in tagger.unreachable(documents)}
    assert reasons == {
        ("inside", "diabéti"): "start or end inside a word",
        ("shared", "AVC"): "share a word with another",
        ("no word", "\u200b"): "have no word of their own",
    }
    scores = medjax.evaluate(
        tagger.component,
        {"params": {}},
        medjax.TrainerConfig("unused", batch_size=4),
        documents,
        metrics_computer=medjax.SpanMetrics(TAGS),
    )
    assert (scores["support"], scores["micro_recall"]) == (6, 3 / 6)
    (warning,) = (record.getMessage() for record in caplog.records)
    assert warning.startswith(
        "3 of 6 entities in 4 documents cannot be represented by tags and count as missed: 1 start "
        "or end inside a word, 1 share a word with another, 1 have no word of their own ('diabéti' "
        "in inside, "
    )
    assert warning.endswith(
        "tag_subtokens=True can represent entities that start and end between tokens"
    )


def test_a_note_warns_of_a_script_that_the_tokenizer_does_not_know():
    tokenizer = make_tokenizer("WordPiece")
    tagger = TokenClassification(None, tokenizer, TAGS)
    notes = tagger.expand([document("HTA", ["HTA"]), document("고혈압 당뇨병 발열", [])]).notes
    assert notes == (
        "75% of the tokens of 2 documents are unknown to the tokenizer; use a model for their "
        "language and script",
    )


def test_a_label_after_the_first_window_counts_once_in_the_loss(tiny_folder):
    tagger = TokenClassification.from_pretrained(tiny_folder, ["Test"], max_length=16)
    component = tagger.component
    variables = component.init(jax.random.key(0))
    text = "pain and fever " * 20
    config = medjax.TrainerConfig("unused", batch_size=4)

    def loss(*entities):
        data = [Document(text, entities)]
        return medjax.evaluate(component, variables, config, data)["loss"]

    early, late = Entity("Test", 0, 4), Entity("Test", 270, 274)
    assert loss(late) != loss()
    both = (loss(early) - loss()) + (loss(late) - loss())
    assert loss(early, late) - loss() == pytest.approx(both, abs=1e-6)
    examples = [tagger.preprocess(item) for item in tagger.expand([Document(text)]).items]
    assert len(examples) > 3
    assert sum(label != -100 for example in examples for label in example["labels"]) == 60


def test_threads_can_share_a_tokenizer():
    tokenizer = make_tokenizer("byte-level BPE")
    texts = [gold.text for gold in LONG]
    expected = tokenizer.encode(texts)
    truncated = [encoding.ids for encoding in tokenizer.encode(texts, 16)]
    failures = []

    def use(max_length, ids):
        for _ in range(30):
            if [encoding.ids for encoding in tokenizer.encode(texts, max_length)] != ids:
                failures.append(max_length)

    threads = [
        threading.Thread(target=use, args=arguments)
        for arguments in ((16, truncated), (None, [encoding.ids for encoding in expected])) * 2
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert tokenizer.encode(texts) == expected
