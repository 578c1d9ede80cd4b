"""Cross-validation: folds, scores of items that were held out, resuming, one compilation."""

import collections
import copy
import dataclasses
import json
import logging
import os
import re
import secrets
import subprocess
import sys

import jax
import numpy as np
import optax
import pytest
from tiny import collate_points, config, mlp, points, sentences, tagger

import medjax
from medjax import Accuracy, ClassificationMetrics, Options, cross_validate
from medjax.batch import ROW_MASK
from medjax.loop.cross_validation import _numbered
from medjax.loop.fold_identity import digest
from medjax.loop.folds import make_folds, tell_shared_texts
from medjax.loop.scores import in_order
from medjax.metrics import DOCUMENT, GOLD, PAIR, PairGold

LABELS = ("a", "b", "c")
DATA = [{**point, "document": n} for n, point in enumerate(points(45))]
GROUPS = [n // 3 for n in range(45)]


def collate(examples):
    """Return the columns of points, with the position of each in its dataset."""
    batch = collate_points(examples)
    batch[DOCUMENT] = [example["document"] for example in examples]
    return batch


def component():
    """Return a classifier whose items know their position in what is evaluated."""

    def expand(data, *, training=True):
        items = [{**data[n], "document": n} for n in range(len(data))]
        return medjax.ExpandedData(items, range(len(items)))

    return mlp(collate=collate)._replace(expand=expand)


def run(folder, made=None, data=DATA, **more):
    settings = config(folder, nb_training_epochs=2, batch_size=8, seed=3)
    more = {"nb_folds": 3, "callback": [], **more}
    return cross_validate(
        made or component(), settings, data, more.pop("metrics", ClassificationMetrics(LABELS)),
        **more,
    )  # fmt: skip


def test_items_without_a_group_are_apart_and_unknown_ones_refused():
    folds = make_folds(20, 5, None, [*[""] * 16, *["p"] * 4], seed=1)
    assert min(map(len, folds)) >= 3  # the longest is that with the group
    with pytest.raises(ValueError, match="the group of item 2 is None; expected what the items"):
        make_folds(20, 5, None, ["a", "b", None, *range(17)], seed=1)


def test_groups_stay_together_and_classes_keep_their_shares():
    groups = [n // 3 for n in range(90)]
    strata = ["rare" if group % 5 == 0 else "common" for group in groups]
    folds = make_folds(90, 5, strata, groups, seed=1)
    assert sorted(np.concatenate(folds).tolist()) == list(range(90))
    for fold in folds:
        assert {groups[n] for n in fold}.isdisjoint({groups[n] for n in set(range(90)) - {*fold}})
        assert 0.1 <= np.mean([strata[n] == "rare" for n in fold]) <= 0.34
    again = make_folds(90, 5, strata, groups, seed=1)
    assert [fold.tolist() for fold in again] == [fold.tolist() for fold in folds]
    other = make_folds(90, 5, strata, groups, seed=2)
    assert [fold.tolist() for fold in other] != [fold.tolist() for fold in folds]


def test_texts_in_two_folds_are_told(caplog):
    texts = ["fever", "cough", "pain", "fever", "cough", "rash"]
    folds = [np.array([0, 1]), np.array([2, 3]), np.array([4, 5])]
    for data in ([{"text": text} for text in texts], [medjax.text.Document(t, ()) for t in texts]):
        caplog.clear()
        tell_shared_texts(data, folds)
        assert "4 of 6 items have a text that is also in another fold" in caplog.text
    caplog.clear()
    tell_shared_texts(data, [np.array([0, 3]), np.array([1, 4]), np.array([2, 5])])
    tell_shared_texts(DATA, [np.arange(10), np.arange(10, 45)])
    assert not caplog.text


def test_every_item_is_scored_once_in_the_order_of_the_data(tmp_path):
    result = run(tmp_path, groups=GROUPS, strata=[point["label"] for point in DATA])
    assert result.columns[DOCUMENT] == list(range(45))
    assert result.columns["labels"] == [point["label"] for point in DATA]
    assert len(result.scores) == 3
    assert sorted(number for fold in result.folds for number in fold) == list(range(45))
    assert all(
        {*fold} == {n for n in range(45) if n // 3 in {m // 3 for m in fold}}
        for fold in result.folds
    )
    for name in ("accuracy", "macro_f1-score", "macro_auroc"):
        value, low, high = result.intervals[name]
        assert low <= value <= high
        mean, spread = result.mean(name)
        assert spread >= 0
        assert min(s[name] for s in result.scores) <= mean <= max(s[name] for s in result.scores)
    whole = ClassificationMetrics(LABELS).compute(result.columns)
    assert result.intervals["accuracy"].value == whole["accuracy"]


def test_accuracy_is_scored_by_groups_in_the_order_of_the_data(tmp_path):
    result = run(tmp_path, groups=GROUPS, metrics=Accuracy())
    assert result.columns[DOCUMENT] == list(range(45))
    assert result.columns["labels"] == [point["label"] for point in DATA]
    assert result.intervals == medjax.bootstrap(Accuracy(), result.columns, groups=GROUPS)


def test_no_fold_is_predicted_by_a_model_that_has_seen_it(tmp_path):
    # A model that has seen an item remembers its label; here labels are drawn at random.
    random = np.random.RandomState(0)
    data = [
        {"x": np.eye(4, dtype=np.float32)[n % 4] * (n + 1), "label": int(random.randint(3)),
         "weight": 1.0, "name": "", "document": n}
        for n in range(40)
    ]  # fmt: skip
    trained_on, tested_on = [], []

    class Spy(medjax.TrainerCallback):
        def on_train_end(self) -> None:
            trained_on.append(set())

    made = component()

    def preprocess(item):
        return dict(item)

    def expand(items, *, training=True):
        (trained_on if training else tested_on).append(
            {float(items[n]["x"].sum()) for n in range(len(items))}
        )
        return made.expand(items, training=training)

    run(tmp_path, made._replace(preprocess=preprocess, expand=expand), data)
    parts = [part for part in trained_on if len(part) < 40]  # lengths are fitted to all items
    assert len(parts) == len(tested_on) == 3
    for train, test in zip(parts, tested_on, strict=True):
        assert train.isdisjoint(test)
        assert len(train) + len(test) == 40


def test_a_run_that_was_killed_goes_on_at_its_fold(tmp_path, caplog):
    expected = run(tmp_path / "whole")

    class Killed(medjax.TrainerCallback):
        def __init__(self):
            self.runs = 0

        def on_train_begin(self, *_):
            self.runs += 1

        def on_epoch_begin(self, epoch):
            if self.runs == 2 and epoch == 2:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "cut", callback=Killed())
    with caplog.at_level(logging.INFO, "medjax"):
        resumed = run(tmp_path / "cut")
    assert "Fold 1 of 3" not in caplog.text
    assert "Fold 2 of 3" in caplog.text
    assert resumed.scores == expected.scores
    assert resumed.columns == expected.columns


@pytest.mark.parametrize("metric", ["loss", "macro_f1-score"])
def test_a_fold_whose_scores_were_not_written_is_scored_again(tmp_path, metric):
    # To check the name of the metric, a few items are scored before training.
    settings = config(
        tmp_path, nb_training_epochs=2, batch_size=8, seed=3, checkpoint_metric=metric
    )

    def validated():
        metrics = ClassificationMetrics(LABELS)
        return cross_validate(component(), settings, DATA, metrics, nb_folds=3, callback=[])

    expected = validated()
    (tmp_path / "fold_2" / "fold.json").unlink()
    again = validated()
    assert again.columns[DOCUMENT] == list(range(45))
    np.testing.assert_allclose(
        again.columns["probabilities"], expected.columns["probabilities"], rtol=1e-6
    )


def test_programs_are_compiled_in_the_first_fold_only(tmp_path, caplog):
    made = tagger()
    with caplog.at_level(logging.INFO, "medjax"):
        run(tmp_path, made, sentences(30), metrics=Accuracy())
    folds = re.split(r"Fold \d of 3", caplog.text)[1:]
    assert "Compiled" in folds[0]
    assert "Compiled training" not in "".join(folds[1:])


def test_documents_of_folds_are_numbered_as_in_the_data():
    held_out = np.array([4, 7])
    columns = {"x": [1, 2], GOLD: [(1, [], []), (0, [], [])], DOCUMENT: [1, 0]}
    assert _numbered(columns, held_out)[GOLD] == [(7, [], []), (4, [], [])]
    pairs = {PAIR: [PairGold(1, None, None, []), PairGold(0, None, "a", [])]}
    assert _numbered(pairs, held_out)[PAIR] == [(7, None, None, []), (4, None, "a", [])]
    assert in_order(_numbered(columns, held_out))["x"] == [2, 1]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"nb_folds": 1}, "nb_folds is 1; expected 2 to 45, the number of items"),
        ({"nb_folds": 16, "groups": GROUPS}, "expected 2 to 15, the number of groups"),
        ({"strata": [1, 2]}, "found strata for 2 items; expected 45"),
        (
            {"groups": GROUPS, "metrics": Accuracy(), "made": mlp()},
            "expected 'document' among them",
        ),
        ({"options": Options(early_stopping_patience=1)}, "watch the scores of the fold"),
        ({"schedule": medjax.reduce_on_plateau()}, "watch the scores of the fold"),
        ({"callback": medjax.EarlyStopping("loss", 1)}, "watch the scores of the fold"),
        ({"callback": [medjax.EarlyStopping("loss", 1)]}, "watch the scores of the fold"),
    ],
)
def test_unusable_arguments_are_refused(tmp_path, arguments, told):
    with pytest.raises(ValueError, match=re.escape(told)):
        run(tmp_path, **arguments)


def test_folds_of_other_arguments_are_refused(tmp_path):
    run(tmp_path)
    with pytest.raises(ValueError, match="is of other data, folds or settings"):
        run(tmp_path, groups=GROUPS)
    with pytest.raises(ValueError, match="is of other data, folds or settings"):
        run(tmp_path, options=Options(max_grad_norm=1.0))
    settings = dataclasses.replace(config(tmp_path), seed=None)
    with pytest.raises(ValueError, match="seed is None; expected a number"):
        cross_validate(component(), settings, DATA, Accuracy(), options=Options())


def other_model():
    made = component()

    def init(key):
        params = made.init(key)["params"]
        return {"params": {**params, "w1": params["w1"] * 1.001}}

    return made._replace(init=init)


def corrected():
    return [*DATA[:7], {**DATA[7], "label": (DATA[7]["label"] + 1) % 3}, *DATA[8:]]


OTHER = {
    "model": lambda: {"made": other_model()},
    "data": lambda: {"data": corrected()},
    "schedule": lambda: {"schedule": optax.linear_schedule(0.1, 0.0, 12)},
    "schedule by epoch": lambda: {"schedule": medjax.by_epoch(lambda epoch: 0.1 / (1 + epoch))},
    "metrics": lambda: {"metrics": ClassificationMetrics(LABELS, threshold=0.3, multi_label=True)},
}


@pytest.mark.parametrize("name", OTHER)
def test_folds_of_another_model_or_schedule_or_other_data_are_refused(tmp_path, name):
    finished = run(tmp_path)
    with pytest.raises(ValueError, match="is of other data, folds or settings"):
        run(tmp_path, **OTHER[name]())
    assert run(tmp_path).columns == finished.columns


def test_a_fold_that_was_begun_with_other_data_is_refused(tmp_path):
    class Killed(medjax.TrainerCallback):
        def on_epoch_begin(self, epoch):
            if epoch == 2:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, callback=Killed())
    with pytest.raises(ValueError, match=r"fold_1.*is of other data, folds or settings"):
        run(tmp_path, data=corrected())
    assert len(run(tmp_path).scores) == 3


def test_folds_of_an_older_version_are_refused(tmp_path):
    run(tmp_path)
    file = tmp_path / "fold_1" / "fold.json"
    content = json.loads(file.read_text())
    settings, held_out = json.loads(content["fold"])
    for name in ("contents", "weights", "variables", "schedule"):
        del settings[name]
    content["fold"] = json.dumps([settings, held_out], sort_keys=True)
    file.write_text(json.dumps(content))
    with pytest.raises(ValueError, match="is of other data, folds or settings"):
        run(tmp_path)


def test_items_that_cannot_be_told_are_left_out(tmp_path):
    class Opaque:
        pass

    class Noisy(list):
        def __getitem__(self, position):
            return {**super().__getitem__(position), "drawn": secrets.randbits(64)}

    for name, data in {
        "opaque": [{**d, "it": Opaque()} for d in DATA],
        "noisy": Noisy(DATA),
    }.items():
        finished = run(tmp_path / name, data=data)
        again = [{**d, "it": Opaque()} for d in DATA] if name == "opaque" else Noisy(DATA)
        assert run(tmp_path / name, data=again).columns == finished.columns


DIGESTS = """
import enum, numpy as np
from medjax.loop.fold_identity import digest
from medjax.text import Document, Entity
Kind = enum.Enum("Kind", ["A", "B"])
item = {"words": {"fever", "cough", "é"}, "n": [1, 2.5, None, True], "kind": Kind.A}
item |= {name: name for name in item["words"]}  # in an order that depends on the process
array = np.arange(6, dtype=np.float16).reshape(2, 3)
print(digest([item, array, Document("no fever", [Entity(3, 8, "sign")])]))
"""


def test_digests_are_the_same_in_every_process():
    told = {
        subprocess.run(
            [sys.executable, "-c", DIGESTS],
            env={**os.environ, "PYTHONHASHSEED": str(seed)},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in (1, 2, 3)
    }
    assert len(told) == 1


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (["a", "bc"], ["ab", "c"]),
        ([["a"], "b"], [["a", "b"]]),
        ((1,), [1]),
        (np.float32(1), np.float64(1)),
        (np.zeros((2, 3)), np.zeros((3, 2))),
        (np.array(["a", 1], object), np.array(["a", 2], object)),
        ({"a": None}, {"a": "None"}),
        (PairGold(1, None, None, []), PairGold(1, None, "a", [])),
        (0.0, -0.0),
    ],
)
def test_different_values_have_different_digests(one, other):
    assert digest(one) != digest(other)
    assert digest(one) == digest(copy.deepcopy(one))


def test_folds_are_trained_with_the_weights_of_their_items(tmp_path):
    # Only items that are divisible by 5 have a weight; all are scored, once each.
    seen = {True: collections.Counter(), False: collections.Counter()}
    made = component()

    def forward(variables, batch, key, /, *, return_loss, eval_mode):
        numbers = batch["number"] * batch[ROW_MASK] + 1000 * (1 - batch[ROW_MASK])
        count = seen[not eval_mode].update
        jax.debug.callback(lambda drawn: count(drawn.astype(int).tolist()), numbers)
        return made.forward(variables, batch, key, return_loss=return_loss, eval_mode=eval_mode)

    def collate_numbers(examples):
        batch = collate(examples)
        batch["number"] = np.array([example["number"] for example in examples], np.float32)
        return batch

    items = [{**item, "number": n} for n, item in enumerate(DATA)]
    data = medjax.Sampled(items, [float(n % 5 == 0) for n in range(45)])
    made_here = made._replace(forward=forward, collate=collate_numbers)
    result = run(tmp_path, made_here, data)
    jax.effects_barrier()
    assert result.columns[DOCUMENT] == list(range(45))
    assert {number % 5 for number in seen[True] if number < 1000} == {0}
    assert {number for number in seen[False] if number < 1000} == set(range(45))
    with pytest.raises(ValueError, match="is of other data, folds or settings"):
        run(tmp_path, made_here, items)
