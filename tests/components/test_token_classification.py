"""The tagger: labels of tokens, training, prediction with offsets, files others load."""

import itertools
import pickle
import shutil

import jax
import numpy as np
import pytest
import torch
import transformers

import medjax
from medjax.components import TokenClassification
from medjax.components.windows import read_words, split_windows
from medjax.text import Document, Entity

LABELS = ["Problem", "Test", "Treatment"]


@pytest.fixture
def tagger(tiny_folder):
    return TokenClassification.from_pretrained(tiny_folder, LABELS)


def labelled_words(tagger, document):
    """Return the text of each labelled token's word with its tag."""
    example = tagger.preprocess(document)
    (encoding,) = tagger.tokenizer.encode([document.text], tagger.max_length)
    words = {word.tokens[0]: document.text[word.start : word.end] for word in read_words(encoding)}
    return [
        (words[position], tagger.tags[label])
        for position, label in enumerate(example["labels"])
        if label != -100
    ]


def test_tags_stand_on_the_first_token_of_each_word(tagger):
    document = Document("No chest pain today", (Entity("Problem", 3, 13),))
    assert labelled_words(tagger, document) == [
        ("No", "O"),
        ("chest", "B-Problem"),
        ("pain", "I-Problem"),
        ("today", "O"),
    ]


def test_bilou_marks_the_last_word_even_if_it_has_several_tokens(tiny_folder):
    tagger = TokenClassification.from_pretrained(tiny_folder, LABELS, tagging_scheme="bilou")
    document = Document("severe pancreatitisxyz", (Entity("Problem", 0, 22),))
    assert len(tagger.preprocess(document)["input_ids"]) > 4
    assert [tag for _, tag in labelled_words(tagger, document)] == ["B-Problem", "L-Problem"]


def test_all_subtokens_can_be_tagged(tiny_folder):
    tagger = TokenClassification.from_pretrained(tiny_folder, LABELS, tag_subtokens=True)
    document = Document("severe pancreatitisxyz", (Entity("Problem", 0, 22),))
    labels = tagger.preprocess(document)["labels"]
    assert labels[0] == labels[-1] == -100
    assert [tagger.tags[label] for label in labels[1:3]] == ["B-Problem", "I-Problem"]
    assert -100 not in labels[1:-1]


def test_long_examples_are_cut_off(tiny_folder):
    tagger = TokenClassification.from_pretrained(tiny_folder, LABELS, max_length=8)
    text = "pain " * 30
    example = tagger.preprocess(Document(text, (Entity("Problem", 0, 4), Entity("Test", 100, 104))))
    assert len(example["input_ids"]) == len(example["labels"]) == 8


def test_unknown_label_is_refused(tagger):
    with pytest.raises(ValueError, match=r"label 'Gene'; expected one of \['Problem'"):
        tagger.preprocess(Document("BRCA1", (Entity("Gene", 0, 5),)))


def test_a_length_the_model_cannot_take_is_refused(tiny_folder):
    with pytest.raises(ValueError, match="max_length is 65; expected 3 to 64"):
        TokenClassification.from_pretrained(tiny_folder, LABELS, max_length=65)


def test_the_implementation_of_attention_is_chosen_by_name(tiny_folder):
    tagger = TokenClassification.from_pretrained(tiny_folder, attention_implementation="cudnn")
    assert tagger.model.attention_implementation == "cudnn"
    with pytest.raises(ValueError, match="attention_implementation is 'flash'; expected 'xla' or"):
        TokenClassification.from_pretrained(tiny_folder, attention_implementation="flash")


def test_labels_must_come_from_somewhere(tiny_folder, tmp_path):
    bare = shutil.copytree(tiny_folder, tmp_path / "bare")
    config = (bare / "config.json").read_text()
    (bare / "config.json").write_text(config.replace("BertForTokenClassification", "BertModel"))
    with pytest.raises(ValueError, match="no token classifier with named tags"):
        TokenClassification.from_pretrained(bare)


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


def test_new_labels_get_a_new_classifier_and_known_ones_keep_theirs(tiny_folder):
    kept = TokenClassification.from_pretrained(tiny_folder, LABELS).init(jax.random.key(0))
    again = TokenClassification.from_pretrained(tiny_folder).init(jax.random.key(1))
    other = TokenClassification.from_pretrained(tiny_folder, ["Disease"]).init(jax.random.key(0))
    kernel = kept["params"]["classifier"]["kernel"]
    np.testing.assert_array_equal(kernel, again["params"]["classifier"]["kernel"])
    assert other["params"]["classifier"]["kernel"].shape == (32, 3)


def test_it_learns_and_its_checkpoint_is_read_by_all(tagger, corpus, tmp_path):
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
    again = TokenClassification.from_pretrained(folder)
    assert again.tags == tagger.tags
    texts = [document.text for document in corpus]
    predicted = again.predict(again.load(folder), texts)
    right = sum(
        {entity[:3] for entity in found} == {entity[:3] for entity in document.entities}
        for found, document in zip(predicted, corpus, strict=True)
    )
    assert right > 0.6 * len(corpus)
    assert all(0 < entity.score <= 1 for found in predicted for entity in found)

    theirs = transformers.AutoModelForTokenClassification.from_pretrained(folder).eval()
    (encoding,) = tagger.tokenizer.encode(texts[:1])
    with torch.no_grad():
        expected = theirs(input_ids=torch.tensor([encoding.ids])).logits.numpy()
    batch = tagger.collate([{"input_ids": encoding.ids, "labels": encoding.ids}])
    found = tagger.forward(
        result.state.variables, batch, jax.random.key(0), return_loss=False, eval_mode=True
    )
    np.testing.assert_allclose(found[0]["logits"], expected, atol=1e-4)


def test_predict_reads_long_texts_in_windows(tagger):
    variables = tagger.init(jax.random.key(0))
    sentence = "No chest pain since the stent. "
    entities, none = tagger.predict(variables, [sentence * 40, ""])
    assert none == ()
    assert all(0 <= entity.start < entity.end <= len(sentence) * 40 for entity in entities)
    assert all(a.end <= b.start for a, b in itertools.pairwise(entities))


def test_windows_keep_every_token_once(tagger):
    (encoding,) = tagger.tokenizer.encode(["chest pain and fever " * 50])
    windows = list(split_windows(0, encoding, 64))
    kept = [w.offset + p for w in windows for p in range(w.first_kept, w.stop_kept)]
    assert len(windows) > 3
    assert kept == [position for position, s in enumerate(encoding.special_tokens_mask) if not s]
    assert all(len(window.ids) <= 64 for window in windows)
    for window in windows:
        inside = range(window.first_kept, window.stop_kept)
        assert [window.ids[p] for p in inside] == [encoding.ids[window.offset + p] for p in inside]


def test_it_pickles_for_workers(tagger):
    preprocess = pickle.loads(pickle.dumps(tagger.component.preprocess))
    document = Document("No chest pain", (Entity("Problem", 3, 13),))
    assert preprocess(document) == tagger.preprocess(document)
