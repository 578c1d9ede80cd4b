"""What a run pads: numbers equal medkit's, and shapes are few where padding is harmless.

In the first test cases padding is harmless with the initial weights, but not later.
"""

import logging
import warnings

import pytest
import torch
from ragged_cases import (
    Gate,
    Pairs,
    Texts,
    both_ways,
    gated,
    largest,
    relations,
    summed,
    texts,
    without_bias,
)
from torch import nn
from torch.nn import functional as F
from trained import Tagger, make, sentences

from medjax_torch import BatchData, Options
from medjax_torch.component_state import find
from medjax_torch.verification.padding_policy import Padding
from medjax_torch.verification.padding_proof import Prover

training = pytest.importorskip("medkit.training")


def both(folder, component, data, evaluated, **options):
    """Train with medkit's Trainer and ours; return both histories and our trainer."""
    fields = {"learning_rate": 0.05, "nb_training_epochs": 2, "batch_size": 4, "seed": 3}

    class Silent(training.TrainerCallback):
        def on_epoch_end(self, metrics, epoch, epoch_duration):
            pass

    config = training.TrainerConfig(output_dir=str(folder / "medkit"), **fields)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # medkit's utcnow
        theirs = training.Trainer(component(), config, data, evaluated, callback=Silent()).train()
    options = Options(order="medkit", **options)
    trainer = make(
        folder / "ours", component(), train=data, evaluated=evaluated, options=options, **fields
    )
    return theirs, trainer.train(), trainer


def assert_equal(actual, expected):
    for row, other in zip(actual, expected, strict=True):
        for phase in ("train", "eval"):
            assert row[phase]["loss"] == pytest.approx(other[phase]["loss"], rel=2e-5), phase


def shapes_of(trainer, column, train=None):
    """Return the shapes in which a column was traced."""
    shapes = set()
    for graph in trainer.prepare().converted.variants.graphs:
        nodes = graph.module.graph.find_nodes(op="placeholder")
        for node, name in zip(nodes[len(nodes) - len(graph.columns) :], graph.columns, strict=True):
            if name == column and train in (None, graph.train):
                shapes.add(tuple(node.meta["val"].shape))
    return shapes


FALSE_LATER = {
    "a sum at zero bias": lambda: Texts(summed, hidden=without_bias),
    "a maximum at zero bias": lambda: Texts(largest, hidden=without_bias),
    "a gate of 0": lambda: Texts(gated, lstm=both_ways, gate=Gate),
}


@pytest.mark.parametrize("name", FALSE_LATER)
def test_axes_harmless_only_at_the_initial_weights_are_not_padded(tmp_path, name, caplog):
    data = texts(12, lengths=(2, 5))
    with caplog.at_level(logging.WARNING, "medjax"):
        theirs, ours, trainer = both(tmp_path, FALSE_LATER[name], data, data[:8])
    assert_equal(ours, theirs)
    assert caplog.text.count("padding input_ids is not harmless") == 1
    assert all(shape[1] < 5 for shape in shapes_of(trainer, "input_ids"))


class Choices(Texts):
    """Six labels for a text, the length of some batches; ``loss_of`` determines their meaning."""

    def __init__(self):
        super().__init__(lambda model, ids: model["embed"](ids).sum(1))
        self.model["head"] = nn.Linear(8, 6)

    def collate(self, examples):
        batch = super().collate(examples)
        labels = [[(example["class"] + k) % 3 for k in range(6)] for example in examples]
        return BatchData(input_ids=batch["input_ids"], labels=torch.tensor(labels))

    def forward(self, batch, return_loss, eval_mode):
        logits = self.model["head"](self.model["embed"](batch["input_ids"]).sum(1))
        apart = logits.mean(1) - batch["labels"].float().mean(1)
        return BatchData(logits=logits), apart.square().mean()


@pytest.mark.parametrize("first", ["six", "other"])
def test_labels_of_six_classes_are_not_padded_in_batches_of_length_six(tmp_path, first):
    six, other = texts(8, lengths=(6, 7)), texts(8, lengths=(4, 5))
    data = [*six, *other] if first == "six" else [*other, *six]
    theirs, ours, trainer = both(tmp_path, Choices, data, data)
    assert_equal(ours, theirs)
    assert shapes_of(trainer, "labels") == {(4, 6)}
    assert shapes_of(trainer, "input_ids") == {(4, 8)}


def padding_of(component, **options):
    """Return the policy of a component, and the batches for which it requested proofs."""
    looked = []

    def prover(batch, train):
        looked.append(batch)

        def call(values):
            return component.forward(values, return_loss=True, eval_mode=not train)

        return Prover(call, find(component), batch, train=train)

    return Padding(
        prover, options.get("padding", {}), dict.fromkeys((True, False), (8, 16, 32))
    ), looked


class Words(Tagger):
    """A tagger with columns for which there is no rule."""

    def collate(self, examples):
        batch = super().collate(examples)
        count = batch["labels"].shape[1]
        return BatchData(
            ids=batch["input_ids"],
            gold=batch["labels"],
            real=batch["labels"] != -100,
            weights=(batch["labels"] != -100).float(),
            extra=torch.ones(len(examples), 7, dtype=torch.int64),
            links=torch.eye(count).expand(len(examples), -1, -1).long(),
        )

    def forward(self, batch, return_loss, eval_mode):
        self.model.train(not eval_mode)
        hidden = self.model[0](batch["ids"]) * batch["real"].unsqueeze(-1)
        linked = batch["links"].float() @ hidden
        logits = self.model[2](hidden + linked)
        logits = logits + 0 * batch["extra"].sum()
        loss = F.cross_entropy(logits.mT, batch["gold"], reduction="none") * batch["weights"]
        return BatchData(logits=logits), loss.sum() / batch["weights"].sum()


def test_columns_that_no_rule_names_are_padded_where_they_vary_together(tmp_path):
    data = sentences()
    theirs, ours, trainer = both(tmp_path, Words, data, data, length_ladder=(16, 32))
    assert_equal(ours, theirs)
    lengths = [{shape[1] for shape in shapes_of(trainer, name)} for name in ("ids", "gold")]
    assert lengths[0] == lengths[1]
    assert len(lengths[0] - {16, 32}) <= 1  # the first batch, before anything varied
    assert shapes_of(trainer, "extra") == {(4, 7)}
    assert {shape[1:] for shape in shapes_of(trainer, "links")} == {(n, n) for n in lengths[0]}


def test_outputs_of_every_batch_are_cropped(tmp_path):
    seen = []

    class Sizes:
        def prepare_batch(self, model_output, input_batch):
            seen.append((model_output["logits"].shape[0], input_batch["pair_labels"].shape[0]))
            return {}

        def compute(self, all_data):
            return {"score": 1.0}

    data = relations()
    trainer = make(
        tmp_path,
        Pairs(),
        train=data,
        evaluated=data,
        batch_size=4,
        nb_training_epochs=1,
        metrics_computer=Sizes(),
        do_metrics_in_training=True,
    )
    trainer.train()
    assert len(seen) == 12
    assert len({size for _, size in seen}) > 4
    assert all(logits == labels for logits, labels in seen)
    assert {shape[0] for shape in shapes_of(trainer, "pairs", train=False)} <= {32, 64}


def test_rows_of_varying_number_are_padded_where_the_loss_ignores_them(tmp_path):
    data = relations(40)
    theirs, ours, trainer = both(tmp_path, Pairs, data, data[:20])
    assert_equal(ours, theirs)
    assert len(shapes_of(trainer, "pairs", train=True)) <= 3
    assert len(shapes_of(trainer, "pairs", train=False)) <= 2


@pytest.mark.slow
def test_a_mean_over_rows_runs_in_exact_shapes_and_warns_of_the_cost(tmp_path):
    data = relations(40)

    def component():
        return Pairs(mean="plain")

    with pytest.warns(
        UserWarning,
        match=r"9 shapes so far, which took .* s each: column 'pairs'.*padding pairs, "
        r"pair_features, pair_labels is not harmless, because .*in collate.*after 64 shapes",
    ):
        theirs, ours, trainer = both(tmp_path, component, data, data[:4])
    assert_equal(ours, theirs)
    assert len(shapes_of(trainer, "pairs")) > 8
    few = make(tmp_path, component(), train=data, options=Options(max_shapes=2), batch_size=4)
    with pytest.raises(ValueError, match=r"after 2 others, .*max_shapes=\.\.\.\) above 2"):
        few.train()


class Rows(Pairs):
    """A component whose batches consist only of pairs."""

    def collate(self, examples):
        batch = super().collate(examples)
        return BatchData({name: batch[name] for name in ("pair_features", "pair_labels")})

    def forward(self, batch, return_loss, eval_mode):
        scale = self.model["scale"](batch["pair_features"]).repeat(1, 2)
        logits = self.model["head"](torch.tanh(scale))
        return BatchData(logits=logits), F.cross_entropy(logits, batch["pair_labels"])


def test_all_rows_of_a_batch_may_vary(tmp_path):
    data = relations(40)
    theirs, ours, trainer = both(tmp_path, Rows, data, data)
    assert_equal(ours, theirs)
    assert len(shapes_of(trainer, "pair_labels", train=True)) <= 4
    batch = trainer.component.collate(data[:4])
    weight = trainer.prepare()(batch, train=True)["weight"]
    assert weight == 1.0
    exact = Options(loss_arithmetic="exact")
    trainer = make(tmp_path / "exact", Rows(), train=data, evaluated=data, options=exact)
    assert trainer.prepare()(batch, train=True)["weight"] == len(batch["pair_labels"])


def test_the_last_batch_of_an_epoch_does_not_count_as_varying_rows():
    component = Tagger()
    padding, looked = padding_of(component)
    data = sentences()
    full, last = component.collate(data[:8]), component.collate(data[:3])
    assert padding.pad(full, train=True)["input_ids"].shape == (8, 32)
    assert padding.pad(last, train=True)["input_ids"].shape[0] == 3
    assert len(looked) == 2
    padding.pad(full, train=True)
    padding.pad(last, train=True)
    assert len(looked) == 2  # shapes seen before cost nothing


def test_evaluation_follows_training_but_needs_its_own_proof():
    class Doubtful(Tagger):
        """``harm`` is the mode in which padding is harmful."""

        harm = True

        def forward(self, batch, return_loss, eval_mode):
            outputs, loss = super().forward(batch, return_loss, eval_mode)
            if self.harm is not eval_mode:
                loss = loss + 0.1 * outputs["logits"].square().mean()
            return outputs, loss

    component = Doubtful()
    batch = component.collate(sentences()[:4])
    padding, _ = padding_of(component)
    assert padding.pad(batch, train=True) is batch
    assert padding.pad(batch, train=False) is batch
    component.harm = False
    padding, _ = padding_of(component)
    assert padding.pad(batch, train=True)["labels"].shape == (4, 32)
    assert padding.pad(batch, train=False) is batch
    component.harm = True  # evaluated before it is trained
    padding, _ = padding_of(component)
    assert padding.pad(batch, train=False)["labels"].shape == (4, 32)
    assert padding.pad(batch, train=True) is batch
    assert padding.pad(batch, train=False) is batch


def test_other_columns_and_dtypes_need_their_own_proof():
    component = Tagger()
    padding, looked = padding_of(component)
    batch = component.collate(sentences()[:4])
    padding.pad(batch, train=True)
    smaller = BatchData({**batch, "labels": batch["labels"].int()})
    with pytest.raises(RuntimeError):  # torch's cross_entropy refuses int32 labels
        padding.pad(smaller, train=True)
    more = BatchData({**batch, "mask": torch.ones_like(batch["labels"]).bool()})
    assert padding.pad(more, train=True)["mask"].shape == (4, 32)
    assert len(looked) == 3


def test_batches_are_not_padded_to_lengths_that_forward_cannot_take():
    class Limited(Tagger):
        def forward(self, batch, return_loss, eval_mode):
            if batch["input_ids"].shape[1] > 20:
                raise IndexError("there are 20 positions")
            return super().forward(batch, return_loss, eval_mode)

    component = Limited()
    padding, _ = padding_of(component)

    def length(size):
        ids = torch.ones(2, size, dtype=torch.int64)
        batch = BatchData(input_ids=ids, labels=ids)
        return padding.pad(batch, train=True)["labels"].shape[1]

    assert [length(size) for size in (5, 12, 18, 19, 6)] == [8, 16, 18, 19, 8]


def test_a_new_size_of_another_axis_is_tested():
    class Sized(Tagger):
        def forward(self, batch, return_loss, eval_mode):
            outputs, loss = super().forward(batch, return_loss, eval_mode)
            if batch["boxes"].shape[1] == 2:
                loss = loss + 0.1 * outputs["logits"].square().mean()
            return outputs, loss + 0 * batch["boxes"].sum()

    component = Sized()
    padding, _ = padding_of(component, padding={"boxes": None})

    def length(size, boxes):
        ids = torch.ones(2, size, dtype=torch.int64)
        batch = BatchData(input_ids=ids, labels=ids, boxes=torch.ones(2, boxes))
        return padding.pad(batch, train=True)["labels"].shape[1]

    lengths = [length(*sizes) for sizes in ((5, 3), (5, 2), (6, 2), (6, 3), (7, 4))]
    assert lengths == [8, 5, 6, 8, 8]
