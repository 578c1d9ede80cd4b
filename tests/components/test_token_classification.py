"""TokenClassification: labels of tokens, training, prediction with offsets, saved files."""

import itertools
import pickle
import re

import jax
import numpy as np
import optax
import pytest
import torch
import transformers
from tiny import mlp

import medjax
from medjax.components import Lora, TokenClassification
from medjax.components.windows import split_windows
from medjax.loop.padding_check import is_ready
from medjax.text import Document, Entity
from medjax.text.alignment import tokens_to_words

LABELS = ["Problem", "Test", "Treatment"]


@pytest.fixture
def tagger(tiny_folder):
    return TokenClassification.from_pretrained(tiny_folder, LABELS)


def labelled_words(tagger, document):
    """Return the text and the tag of each word."""
    example = tagger.preprocess(document)
    (encoding,) = tagger.tokenizer.encode([document.text])
    words = tokens_to_words(document.text, encoding.offsets, subtokens=tagger.tag_subtokens)
    assert [w.token for w in words] == [n for n, x in enumerate(example["labels"]) if x != -100]
    assert list(example["gold"].words) == [word[:2] for word in words]
    return [
        (document.text[start:end], tagger.tags[example["labels"][token]])
        for start, end, token in words
    ]


def test_the_first_token_of_each_word_is_tagged(tagger):
    document = Document("No chest pain today", (Entity("Problem", 3, 13),))
    assert labelled_words(tagger, document) == [
        ("No", "O"),
        ("chest", "B-Problem"),
        ("pain", "I-Problem"),
        ("today", "O"),
    ]


def test_bilou_marks_the_last_word_even_if_it_has_several_tokens(tiny_folder):
    tagger = TokenClassification.from_pretrained(tiny_folder, LABELS, tagging_scheme="bilou")
    document = Document("severe swelling", (Entity("Problem", 0, 15),))
    assert len(tagger.preprocess(document)["input_ids"]) > 4
    assert [tag for _, tag in labelled_words(tagger, document)] == ["B-Problem", "L-Problem"]


def test_all_subtokens_can_be_tagged(tiny_folder):
    tagger = TokenClassification.from_pretrained(tiny_folder, LABELS, tag_subtokens=True)
    document = Document("severe swelling", (Entity("Problem", 0, 15),))
    labels = tagger.preprocess(document)["labels"]
    assert labels[0] == labels[-1] == -100
    assert [tagger.tags[label] for label in labels[1:3]] == ["B-Problem", "I-Problem"]
    assert -100 not in labels[1:-1]


def test_a_long_document_is_split_into_windows_instead_of_truncated(tiny_folder):
    tagger = TokenClassification.from_pretrained(tiny_folder, LABELS, max_length=8)
    document = Document("pain " * 30, (Entity("Problem", 0, 4), Entity("Test", 100, 104)), "long")
    with pytest.raises(ValueError, match="found a document of 30 tokens; expected one that fits"):
        tagger.preprocess(document)
    expanded = tagger.expand([Document("fever"), document])
    assert list(expanded.origins) == [0, *[1] * (len(expanded) - 1)]
    examples = [tagger.preprocess(item) for item in expanded.items]
    assert all(len(example["input_ids"]) <= 8 for example in examples)
    labels = [label for example in examples[1:] for label in example["labels"] if label != -100]
    assert [tagger.tags[label] for label in labels] == [
        "B-Problem", *["O"] * 19, "B-Test", *["O"] * 9
    ]  # fmt: skip
    entities = [entity for example in examples for entity in example["gold"].entities]
    assert entities == [("Problem", 0, 4), ("Test", 100, 104)]


def test_an_entity_over_two_windows_goes_on_in_the_second(tiny_folder):
    tagger = TokenClassification.from_pretrained(tiny_folder, LABELS, max_length=8)
    document = Document("pain " * 12, (Entity("Problem", 0, 59),))
    examples = [tagger.preprocess(item) for item in tagger.expand([document]).items]
    labels = [label for example in examples for label in example["labels"] if label != -100]
    assert len(examples) > 2
    assert [tagger.tags[label] for label in labels] == ["B-Problem", *["I-Problem"] * 11]


def test_an_unknown_label_is_refused(tagger):
    document = Document("BRCA1", (Entity("Gene", 0, 5),))
    with pytest.raises(ValueError, match=r"label 'Gene'; expected one of \['Problem'"):
        tagger.preprocess(document)
    with pytest.raises(ValueError, match=r"the document 'BRCA1' has the label 'Gene'"):
        tagger.expand([document])


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ({"text": "pain"}, "an item of the data is {'text': 'pain'}; expected a medjax.text.Docu"),
        (Document("pain", (Entity("Test", 0, 5),)), "Test at 0 to 5; expected 0 <= start < end <="),
        (Document("pain", (Entity("Test", 2, 2),)), "Test at 2 to 2; expected 0 <= start < end <="),
    ],
)
def test_an_invalid_document_is_refused(tagger, document, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        tagger.expand([document])


def test_a_max_length_beyond_that_of_the_model_is_refused(tiny_folder):
    with pytest.raises(ValueError, match="max_length is 65; expected 3 to 64"):
        TokenClassification.from_pretrained(tiny_folder, LABELS, max_length=65)


def test_the_attention_implementation_is_chosen_by_name(tiny_folder):
    tagger = TokenClassification.from_pretrained(tiny_folder, attention_implementation="cudnn")
    assert tagger.model.attention_implementation == "cudnn"
    with pytest.raises(ValueError, match="attention_implementation is 'flash'; expected 'xla' or"):
        TokenClassification.from_pretrained(tiny_folder, attention_implementation="flash")


def test_loss_ignores_padding_rows_and_lengths(tagger, corpus):
    component = tagger.component
    variables = component.init(jax.random.key(0))
    config = medjax.TrainerConfig("unused", batch_size=1)
    alone = medjax.evaluate(component, variables, config, corpus[:7])
    wide = medjax.Options(length_ladder=(64,), length_window=0)
    together = medjax.evaluate(
        component,
        variables,
        medjax.TrainerConfig("unused", batch_size=5),
        corpus[:7],
        options=wide,
    )
    assert together["loss"] == pytest.approx(alone["loss"], rel=1e-5)


def test_new_labels_get_a_new_classifier_and_known_labels_keep_theirs(tiny_folder):
    same = TokenClassification.from_pretrained(tiny_folder, LABELS).init(jax.random.key(0))
    default = TokenClassification.from_pretrained(tiny_folder).init(jax.random.key(1))
    other = TokenClassification.from_pretrained(tiny_folder, ["Disease"]).init(jax.random.key(0))
    kernel = same["params"]["classifier"]["kernel"]
    np.testing.assert_array_equal(kernel, default["params"]["classifier"]["kernel"])
    assert other["params"]["classifier"]["kernel"].shape == (32, 3)


def test_it_learns_and_transformers_reads_its_checkpoint(tagger, corpus, tmp_path):
    config = medjax.TrainerConfig(
        tmp_path / "out",
        learning_rate=5e-3,
        nb_training_epochs=30,
        batch_size=16,
        seed=0,
        checkpoint_metric="micro_f1-score",
        minimize_checkpoint_metric=False,
        checkpoint_period=0,
    )
    options = medjax.Options(length_ladder=(64,), cache_preprocessed=True)
    result = medjax.train(
        tagger.component,
        config,
        corpus,
        corpus,
        metrics_computer=medjax.SpanMetrics(tagger.tags),
        callback=[],
        options=options,
    )
    scores = result.history[-1]["eval"]
    assert scores["micro_f1-score"] > 0.8
    assert result.nb_compilations == 2

    folder = result.best_checkpoint
    loaded = TokenClassification.from_pretrained(folder)
    assert loaded.tags == tagger.tags
    texts = [document.text for document in corpus]
    predicted = loaded.predict(loaded.load(folder), texts)
    nb_correct = sum(
        {entity[:3] for entity in entities} == {entity[:3] for entity in document.entities}
        for entities, document in zip(predicted, corpus, strict=True)
    )
    assert nb_correct > 0.6 * len(corpus)
    assert all(0 < entity.score <= 1 for entities in predicted for entity in entities)

    theirs = transformers.AutoModelForTokenClassification.from_pretrained(folder).eval()
    (encoding,) = tagger.tokenizer.encode(texts[:1])
    with torch.no_grad():
        expected = theirs(input_ids=torch.tensor([encoding.ids])).logits.numpy()
    example = {"input_ids": encoding.ids, "labels": encoding.ids, "gold": None}
    batch = tagger.collate([example])
    outputs, _, _ = tagger.forward(
        result.state.variables, batch, jax.random.key(0), return_loss=False, eval_mode=True
    )
    np.testing.assert_allclose(outputs["logits"], expected, atol=1e-4)


def test_predict_reads_long_texts_in_windows(tagger):
    variables = tagger.init(jax.random.key(0))
    sentence = "No chest pain since the stent. "
    entities, none = tagger.predict(variables, [sentence * 40, ""])
    assert none == ()
    assert all(0 <= entity.start < entity.end <= len(sentence) * 40 for entity in entities)
    assert all(a.end <= b.start for a, b in itertools.pairwise(entities))


@pytest.mark.parametrize("max_length", [3, 4, 9, 64])
def test_windows_tag_every_word_once(tagger, max_length):
    text = "chest pain and fever " * 50
    (encoding,) = tagger.tokenizer.encode([text])
    words = tokens_to_words(text, encoding.offsets)
    windows = split_windows(encoding, words, max_length)
    assert len(windows) > 3
    assert [n for w in windows for n in range(w.first_word, w.stop_word)] == list(range(len(words)))
    for window in windows:
        assert len(window.ids) <= max_length
        assert (window.ids[0], window.ids[-1]) == (encoding.ids[0], encoding.ids[-1])
        tokens = [word.token for word in words[window.first_word : window.stop_word]]
        tagged = [window.ids[position] for position in window.positions]
        assert tagged == [encoding.ids[token] for token in tokens]


def test_preprocess_can_be_pickled_for_workers(tagger):
    preprocess = pickle.loads(pickle.dumps(tagger.component.preprocess))
    document = Document("No chest pain", (Entity("Problem", 3, 13),))
    assert preprocess(document) == tagger.preprocess(document)


def test_weights_for_other_classes_are_not_loaded(tiny_folder, tagger, tmp_path):
    other = TokenClassification.from_pretrained(tiny_folder, ["Treatment", "Test", "Sign"])
    other.save(tmp_path, other.init(jax.random.key(0)))
    with pytest.raises(ValueError, match=r"has the classes \['O', 'B-Treatment'.*; expected \['O'"):
        tagger.load(tmp_path)


def test_the_check_of_padding_leaves_ready_components_out(tiny_folder):
    ready = TokenClassification.from_pretrained(tiny_folder, ["Drug"]).component
    assert is_ready(ready)
    assert is_ready(Lora(ready, rank=2).component)
    for other in (
        mlp(),
        Lora(mlp(), rank=2).component,
        ready._replace(forward=lambda *args, **kwargs: ready.forward(*args, **kwargs)),
        ready._replace(collate=lambda examples: ready.collate(examples)),
    ):
        assert not is_ready(other)


def test_the_check_of_padding_looks_at_subclasses(tiny_folder):
    class Mine(TokenClassification):
        pass

    assert not is_ready(Mine.from_pretrained(tiny_folder, ["Drug"]).component)


@pytest.mark.slow  # half a minute; tests/loop/test_outside.py has a small component
def test_an_optimizer_that_a_callback_changes_is_used_in_the_next_epoch(tiny_folder, tmp_path):
    settings = {"scale": 1.0}

    def optimizer(rate):
        return optax.chain(optax.scale(settings["scale"]), optax.sgd(rate))

    class Stops(medjax.TrainerCallback):
        def on_epoch_end(self):
            settings["scale"] = 0.0

    tagger = TokenClassification.from_pretrained(tiny_folder, LABELS, optimizer=optimizer)
    data = [Document("No chest pain today", (Entity("Problem", 3, 13),))] * 4
    config = medjax.TrainerConfig(tmp_path, batch_size=4, nb_training_epochs=3, learning_rate=0.1)
    result = medjax.train(tagger.component, config, data, data, callback=[Stops()])
    losses = [row["eval"]["loss"] for row in result.history]
    assert losses[0] == losses[1] == losses[2]
