"""TextClassification: windows, both kinds of problem, files that transformers opens."""

import functools
import json
import re

import jax
import numpy as np
import pytest
import torch
import transformers
from tiny import config

import medjax
from medjax.components import TextClassification
from medjax.components.text_prediction import prediction_of
from medjax.metrics import ClassificationMetrics, choose_thresholds
from medjax.text import LabelledText

LABELS = ["cardiology", "neurology", "surgery"]
TEXTS = [
    LabelledText("Chest pain since the stent.", ("cardiology",)),
    LabelledText("Headache and weakness of the left arm.", ("neurology",)),
    LabelledText("He was taken to the operating room for acute pancreatitis.", ("surgery",)),
    LabelledText("No chest pain.", ("cardiology",)),
    LabelledText("Fever after ibuprofen, and headache.", ("neurology",)),
]
SEVERAL = [text._replace(labels=labels) for text, labels in zip(
    TEXTS, [(), ("cardiology", "surgery"), ("surgery",), tuple(LABELS), ("neurology",)],
    strict=True,
)]  # fmt: skip
MULTI = {"problem_type": "multi_label_classification"}


@pytest.fixture
def classifier(tiny_folder):
    return TextClassification.from_pretrained(tiny_folder, LABELS)


def variables_of(classifier, seed=0):
    return classifier.init(jax.random.key(seed))


def run(classifier, variables, texts, **how):
    """Return outputs and loss of a batch, without dropout."""
    examples = [classifier.preprocess(text) for text in texts]
    batch = classifier.collate(examples)
    batch["row_mask"] = np.ones(len(texts), np.float32)
    how = {"return_loss": True, "eval_mode": True, **how}
    outputs, loss, _ = classifier.forward(variables, batch, jax.random.key(0), **how)
    return outputs, loss


@pytest.mark.parametrize("model_type", ["bert", "roberta", "distilbert", "electra", "deberta-v2"])
@pytest.mark.parametrize("problem", ["single_label_classification", "multi_label_classification"])
def test_transformers_computes_the_same(tmp_path, tiny_folder, model_type, problem):
    tagger_folder = tiny_folder
    several = problem == MULTI["problem_type"]
    classifier = TextClassification.from_pretrained(tagger_folder, LABELS, problem_type=problem)
    encoder = {"num_hidden_layers": 2, "vocab_size": classifier.model.config.vocab_size}
    sizes = {"hidden_size": 32, "num_attention_heads": 4, "intermediate_size": 64, **encoder}
    if model_type == "electra":
        sizes["embedding_size"] = 16
    if model_type == "deberta-v2":
        sizes |= {"relative_attention": True, "pos_att_type": "p2c|c2p", "position_buckets": 8}
    if model_type == "distilbert":
        sizes = {"dim": 32, "n_layers": 2, "n_heads": 4, "hidden_dim": 64, **encoder}
    settings = transformers.AutoConfig.for_model(
        model_type,
        **sizes,
        pad_token_id=0,
        max_position_embeddings=70,
        problem_type=problem,
        id2label=dict(enumerate(LABELS)),
        label2id={label: number for number, label in enumerate(LABELS)},
    )
    torch.manual_seed(0)
    expected = transformers.AutoModelForSequenceClassification.from_config(settings).eval()
    with torch.no_grad():
        for parameter in expected.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    folder = tmp_path / "theirs"
    expected.save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / name).write_bytes((tagger_folder / name).read_bytes())
    ours = TextClassification.from_pretrained(folder)
    assert (ours.labels, ours.problem_type) == (tuple(LABELS), problem)
    variables, texts = variables_of(ours), SEVERAL if several else TEXTS
    outputs, loss = run(ours, variables, texts)
    batch = ours.collate([ours.preprocess(text) for text in texts])
    labels = batch["targets"] if several else batch["labels"]
    with torch.no_grad():
        result = expected(
            input_ids=torch.tensor(batch["input_ids"]).long(),
            attention_mask=torch.tensor(batch["attention_mask"]).long(),
            labels=torch.tensor(labels) if several else torch.tensor(labels).long(),
        )
    np.testing.assert_allclose(outputs["logits"], result.logits.numpy(), rtol=0, atol=1e-5)
    np.testing.assert_allclose(float(loss.compute()), float(result.loss), rtol=1e-5)
    ours.save(tmp_path / "ours", variables)
    again, info = transformers.AutoModelForSequenceClassification.from_pretrained(
        tmp_path / "ours", output_loading_info=True
    )
    assert not any(info.values())
    assert type(again) is type(expected)
    assert again.config.problem_type == problem
    for name, tensor in again.state_dict().items():
        np.testing.assert_array_equal(tensor.numpy(), expected.state_dict()[name].numpy())


def windows_of(classifier, text):
    """Return the logits of each window of a text, from the model itself."""
    example = classifier.preprocess(text)
    ids, size = example["input_ids"], classifier.max_length
    parts = [ids[first : first + size] for first in range(0, len(ids), size)]
    variables = variables_of(classifier)
    return np.stack([
        np.asarray(classifier.model.apply(
            variables, np.array([part]), np.ones((1, len(part)), np.int32), deterministic=True
        ))[0]
        for part in parts
    ])  # fmt: skip


@pytest.mark.parametrize("pooling", ["mean", "max"])
def test_a_long_text_is_pooled_over_its_windows(tiny_folder, pooling):
    classifier = TextClassification.from_pretrained(
        tiny_folder, LABELS, max_length=12, pooling=pooling
    )
    long = LabelledText(" ".join(text.text for text in TEXTS), ("surgery",))
    logits = windows_of(classifier, long)
    assert len(logits) > 4
    expected = getattr(logits, pooling)(0)
    outputs, _ = run(classifier, variables_of(classifier), [TEXTS[0], long, TEXTS[3]])
    np.testing.assert_allclose(outputs["logits"][1], expected, rtol=0, atol=1e-5)
    # Beside a long text, a short one has windows of padding, which do not count.
    alone, _ = run(classifier, variables_of(classifier), [TEXTS[0]])
    np.testing.assert_allclose(outputs["logits"][0], alone["logits"][0], rtol=0, atol=1e-5)


def test_windows_cover_the_text_and_overlap_by_a_quarter(tiny_folder):
    classifier = TextClassification.from_pretrained(tiny_folder, LABELS, max_length=12)
    text = LabelledText(" ".join(text.text for text in TEXTS), ("surgery",))
    (encoding,) = classifier.tokenizer.encode([text.text])
    ids = classifier.preprocess(text)["input_ids"]
    windows = [ids[first : first + 12] for first in range(0, len(ids), 12)]
    assert all(window[0] == encoding.ids[0] for window in windows)
    assert all(window[-1] == encoding.ids[-1] for window in windows)
    inner = encoding.ids[1:-1]
    joined = windows[0][1:-1]
    for window in windows[1:]:
        assert joined[-2:] == window[1:3]  # a quarter of the 10 tokens between the special ones
        joined += window[3:-1]
    assert joined == inner


@pytest.mark.parametrize("options", [pytest.param({}, marks=pytest.mark.slow), MULTI])
def test_loss_and_gradients_do_not_depend_on_padding(tiny_folder, options):
    classifier = TextClassification.from_pretrained(tiny_folder, LABELS, max_length=12, **options)
    texts = SEVERAL if options else TEXTS
    variables = variables_of(classifier)
    examples = [classifier.preprocess(text) for text in texts[:3]]

    def loss(params, nb_rows, length):
        ladder = medjax.data.ladder.Ladder((length,), medjax.data.ladder.HUGGING_FACE_PADDING)
        batch = medjax.data.ladder.fix_shape(classifier.collate(examples), ladder, nb_rows)
        _, mean, _ = classifier.forward(
            {"params": params}, batch, jax.random.key(0), return_loss=True, eval_mode=True
        )
        return mean.compute()

    both = [
        jax.jit(jax.value_and_grad(functools.partial(loss, nb_rows=rows, length=length)))(
            variables["params"]
        )
        for rows, length in ((3, 48), (7, 84))
    ]
    for one, other in zip(*map(jax.tree.leaves, both), strict=True):
        np.testing.assert_allclose(one, other, rtol=2e-4, atol=2e-6)


@pytest.mark.parametrize("options", [{}, pytest.param(MULTI, marks=pytest.mark.slow)])
def test_it_learns_is_saved_and_predicts(tiny_folder, tmp_path, options):
    classifier = TextClassification.from_pretrained(tiny_folder, LABELS, max_length=32, **options)
    texts = SEVERAL if options else TEXTS
    result = medjax.train(
        classifier.component,
        config(
            tmp_path, nb_training_epochs=60, batch_size=5, learning_rate=5e-3, checkpoint_period=0
        ),
        texts,
        texts,
        options=medjax.Options(length_ladder=(32,)),
        callback=[],
    )
    assert result.history[-1]["train"]["loss"] < 0.1
    again = TextClassification.from_pretrained(result.last_checkpoint)
    assert (again.labels, again.problem_type) == (classifier.labels, classifier.problem_type)
    predicted = again.predict(
        again.load(result.last_checkpoint), [text.text for text in texts], batch_size=2
    )
    assert [set(one.labels) for one in predicted] == [set(text.labels) for text in texts]
    for one in predicted:
        assert list(one.probabilities) == LABELS
        assert options or np.isclose(sum(one.probabilities.values()), 1)


def test_thresholds_by_class(tiny_folder):
    classifier = TextClassification.from_pretrained(tiny_folder, LABELS, **MULTI)
    variables = variables_of(classifier)
    (one,) = classifier.predict(variables, ["Fever."])
    least = {label: p + 0.01 for label, p in one.probabilities.items()}
    least["surgery"] -= 0.02
    (other,) = classifier.predict(variables, ["Fever."], threshold=least)
    assert other.labels == ("surgery",)


def test_a_new_classifier_keeps_the_pooler_of_the_encoder(tmp_path, tiny_folder, classifier):
    trained = variables_of(classifier)
    classifier.save(tmp_path, trained)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        assert (tmp_path / name).is_file()
    other = TextClassification.from_pretrained(tmp_path, ["no", "yes"])
    params = variables_of(other)["params"]
    kept = trained["params"]["head"]["dense"]["kernel"]
    np.testing.assert_array_equal(params["head"]["dense"]["kernel"], kept)
    assert params["classifier"]["kernel"].shape == (32, 2)


@pytest.mark.parametrize("problem", ["single_label_classification", MULTI["problem_type"]])
def test_classes_asked_for_in_another_order_have_the_weights_of_the_checkpoint(
    problem, tmp_path, tiny_folder, caplog
):
    trained = TextClassification.from_pretrained(tiny_folder, LABELS, problem_type=problem)
    weights = variables_of(trained)
    weights["params"]["classifier"]["bias"] = np.array([0.5, -0.5, 0.1], np.float32)
    least = {"cardiology": 0.2, "neurology": 0.3, "surgery": 0.4}
    several = trained.is_multi_label
    (trained.with_thresholds(least) if several else trained).save(tmp_path / "a", weights)
    caplog.clear()
    wanted = ("surgery", "cardiology", "neurology")
    other = TextClassification.from_pretrained(tmp_path / "a", wanted)
    assert other.labels == wanted
    assert other.thresholds == (least if several else None)
    assert "is replaced" not in caplog.text
    reordered = variables_of(other, seed=1)
    texts = [text.text for text in TEXTS]
    expected = trained.predict(weights, texts, threshold=least if several else None)
    found = other.predict(reordered, texts)
    assert [set(one.labels) for one in found] == [set(one.labels) for one in expected]
    for one, by_trained in zip(found, expected, strict=True):
        assert list(one.probabilities) == list(wanted)
        assert one.probabilities == pytest.approx(by_trained.probabilities, abs=1e-6)
    with pytest.raises(ValueError, match="in this order"):
        other.load(tmp_path / "a")
    other.save(tmp_path / "b", reordered)
    again = TextClassification.from_pretrained(tmp_path / "b")
    assert again.labels == wanted
    assert again.predict(again.load(tmp_path / "b"), texts) == found


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"labels": ()}, "item 0|labels []; expected exactly one"),
        ({"labels": ("cardiology", "surgery")}, "expected exactly one, or problem_type="),
        ({"labels": ("heart",)}, "has the label 'heart'; expected one of ['cardiology'"),
        (
            {"labels": ("surgery\xa0",)},
            "'surgery'].|looks like 'surgery\\xa0', but its white space",
        ),
        ({"labels": "surgery"}, "labels, a tuple of strings"),
        ({"text": None}, "item 0 is LabelledText(text=None"),
    ],
)
def test_unusable_texts_are_refused_before_training(classifier, tmp_path, change, told):
    texts = [TEXTS[0]._replace(**change)]
    with pytest.raises(ValueError, match=re.escape(told.split("|")[-1])):
        medjax.train(classifier.component, config(tmp_path), texts, callback=[])


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"labels": None}, "is not a classifier of texts"),
        ({"labels": "ab"}, "expected different names of classes"),
        ({"labels": ["a", "a"]}, "expected different names of classes"),
        ({"labels": ["a"]}, "expected at least two classes"),
        ({"labels": LABELS, "pooling": "sum"}, "pooling is 'sum'; expected 'mean' or 'max'"),
        ({"labels": LABELS, "problem_type": "regression"}, "problem_type is 'regression'"),
        ({"labels": LABELS, "max_length": 999}, "max_length is 999; expected 3 to 64"),
    ],
)
def test_unusable_arguments_are_refused(tiny_folder, arguments, told):
    with pytest.raises(ValueError, match=re.escape(told)):
        TextClassification.from_pretrained(tiny_folder, **arguments)


def test_a_tagger_is_no_classifier_of_texts(tiny_folder, classifier, tmp_path):
    assert medjax.models.read_labels(tiny_folder, medjax.models.TEXT_CLASSIFICATION) is None
    classifier.save(tmp_path, variables_of(classifier))
    assert medjax.models.read_labels(tmp_path) is None
    with pytest.raises(ValueError, match=r"expected \['no', 'yes'\], in this order"):
        TextClassification.from_pretrained(tiny_folder, ["no", "yes"]).load(tmp_path)


@pytest.mark.parametrize("pooling", ["mean", "max"])
def test_a_row_without_tokens_has_finite_logits(tiny_folder, pooling):
    classifier = TextClassification.from_pretrained(
        tiny_folder, LABELS, max_length=12, pooling=pooling
    )
    ids = np.zeros((2, 24), np.int32)
    mask = np.stack([np.ones(24), np.zeros(24)]).astype(np.int32)
    batch = medjax.BatchData(input_ids=ids, attention_mask=mask)
    outputs, _, _ = classifier.forward(
        variables_of(classifier), batch, jax.random.key(0), return_loss=False, eval_mode=True
    )
    assert np.isfinite(outputs["logits"]).all()


def test_thresholds_are_saved_followed_and_not_trained_with(tiny_folder, tmp_path):
    plain = TextClassification.from_pretrained(tiny_folder, LABELS, **MULTI)
    variables = plain.init(jax.random.key(0))
    text = TEXTS[0].text
    probabilities = plain.predict(variables, [text])[0].probabilities
    first, *others = LABELS
    thresholds = {first: probabilities[first] + 1e-3, **dict.fromkeys(others, 0.0)}
    tuned = plain.with_thresholds(thresholds)
    tuned.save(tmp_path / "tuned", variables)
    again = TextClassification.from_pretrained(tmp_path / "tuned")
    assert again.thresholds == thresholds
    weights = again.load(tmp_path / "tuned")
    assert set(again.predict(weights, [text])[0].labels) == set(others)
    assert again.predict(weights, [text], threshold=0.0)[0].labels == plain.labels
    with pytest.raises(ValueError, match=r"found thresholds for .*; expected one for each"):
        again.predict(weights, [text], threshold={first: 0.5})

    again.component.save(tmp_path / "trained", variables)
    assert TextClassification.from_pretrained(tmp_path / "trained").thresholds is None
    replaced = TextClassification.from_pretrained(tmp_path / "tuned", ["a", "b"], **MULTI)
    assert replaced.thresholds is None
    single = TextClassification.from_pretrained(tiny_folder, LABELS)
    with pytest.raises(ValueError, match="for one class per text"):
        single.with_thresholds(thresholds)
    for least in (0.9, thresholds):
        with pytest.raises(ValueError, match="for one class per text; they need problem_type="):
            single.predict(variables, [text], threshold=least)


def test_training_a_classifier_with_thresholds_says_that_they_are_of_other_weights(
    tiny_folder, tmp_path, caplog
):
    plain = TextClassification.from_pretrained(tiny_folder, LABELS, **MULTI)
    plain.with_thresholds(dict.fromkeys(LABELS, 0.25)).save(
        tmp_path / "tuned", plain.init(jax.random.key(0))
    )
    tuned = TextClassification.from_pretrained(tmp_path / "tuned")
    assert not caplog.records
    (note,) = tuned.expand(SEVERAL, training=True).notes
    assert "were chosen for the weights it starts from" in note
    assert tuned.expand(SEVERAL, training=False).notes == ()
    dropped = tuned.with_thresholds(None)
    assert dropped.expand(SEVERAL, training=True).notes == ()
    weights = dropped.load(tmp_path / "tuned")
    halves = dropped.predict(weights, [TEXTS[0].text])
    assert halves == tuned.predict(weights, [TEXTS[0].text], threshold=0.5)


def test_thresholds_that_cannot_be_used_are_refused(tiny_folder, tmp_path):
    plain = TextClassification.from_pretrained(tiny_folder, LABELS, **MULTI)
    plain.save(tmp_path, plain.init(jax.random.key(0)))
    file = tmp_path / "config.json"
    content = json.loads(file.read_text())
    for stored, message in (
        ({LABELS[0]: 0.5}, "label_thresholds: found thresholds for"),
        (dict.fromkeys(LABELS, 2), "expected numbers between 0 and 1"),
        ("high", "found 'high', expected an object with a number for each class"),
    ):
        file.write_text(json.dumps({**content, "label_thresholds": stored}))
        with pytest.raises(ValueError, match=message):
            TextClassification.from_pretrained(tmp_path)


def test_a_chosen_threshold_near_1_is_the_same_in_metrics_and_predictions():
    """Float32 cannot tell these probabilities apart."""
    logits = np.array([[20.0], [17.5], [19.0], [17.4]], np.float32)
    wanted = np.array([[1], [0], [1], [0]])
    metrics = ClassificationMetrics(("rare",), multi_label=True)
    columns = metrics.prepare_batch({"logits": logits}, {"targets": wanted})
    least = choose_thresholds(columns, ("rare",))
    assert [prediction_of(row, ("rare",), least).labels for row in logits] == [
        ("rare",),
        (),
        ("rare",),
        (),
    ]
