"""Components of many kinds are trained: padding, metrics, control flow, refusals."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from trained import DATA, Accuracy, Classifier, Tagger, make, sentences, weights

from medjax_torch import BatchData, Options
from medjax_torch.batches import epoch_batches
from medjax_torch.graph import TraceError
from medjax_torch.verification import VerificationError

NAMES = (
    "Trainer",
    "TrainerConfig",
    "TrainerCallback",
    "DefaultPrinterCallback",
    "BatchData",
    "MetricsComputer",
    "TrainableComponent",
)


def test_a_metrics_computer_gets_the_same_as_in_torch(tmp_path):
    computer = Accuracy()
    component = Classifier()
    trainer = make(tmp_path, component, metrics_computer=computer, nb_training_epochs=1)
    history = trainer.train()
    assert computer.computed == 1
    with torch.no_grad():
        expected = [component.model(batch["x"]) for batch in computer.inputs]
    for outputs, logits in zip(computer.outputs, expected, strict=True):
        assert type(outputs["logits"]) is torch.Tensor
        assert not outputs["logits"].requires_grad
        torch.testing.assert_close(outputs["logits"], logits)
    assert set(history[0]["eval"]) == {"loss", "accuracy"}
    assert set(history[0]["train"]) == {"loss"}


def test_outputs_of_padded_batches_are_cropped(tmp_path):
    lengths = []

    class Lengths:
        def prepare_batch(self, model_output, input_batch):
            lengths.append((model_output["logits"].shape, input_batch["labels"].shape))
            return {}

        def compute(self, all_data):
            assert all_data == {}
            return {"score": 1.0}

    data = sentences()
    trainer = make(
        tmp_path,
        Tagger(),
        train=data,
        evaluated=data,
        metrics_computer=Lengths(),
        options=Options(length_ladder=(16, 32)),
        nb_training_epochs=1,
    )
    trainer.train()
    assert len(lengths) == 3
    assert all(logits == (*labels, 3) for logits, labels in lengths)
    graphs = trainer.prepare().converted.variants.graphs
    lengths_traced = {node.meta["val"].shape[1] for graph in graphs for node in _ids(graph)}
    assert lengths_traced <= {16, 32}


def _ids(graph):
    nodes = graph.module.graph.find_nodes(op="placeholder")
    columns = zip(nodes[len(nodes) - len(graph.columns) :], graph.columns, strict=True)
    return [node for node, name in columns if name == "input_ids"]


def test_padding_changes_no_number(tmp_path):
    data = sentences()
    ladders = ((8, 16, 24, 32), (40,))
    runs = [
        make(
            tmp_path / str(number),
            Tagger(),
            train=data,
            evaluated=data,
            options=Options(length_ladder=ladder),
        ).train()
        for number, ladder in enumerate(ladders)
    ]
    for first, second in zip(*runs, strict=True):
        for phase in ("train", "eval"):
            assert first[phase]["loss"] == pytest.approx(second[phase]["loss"], rel=1e-5)


def test_labels_out_of_range_are_named(tmp_path):
    data = [*DATA[:40], {**DATA[40], "y": 7}]
    with pytest.raises((ValueError, IndexError), match=r"Column 'y' holds 7.*expected 0 to 2"):
        make(tmp_path, train=data).train()


def test_integers_that_do_not_fit_stay_on_the_host_or_are_refused(tmp_path):
    class Wide(Classifier):
        def collate(self, examples):
            batch = super().collate(examples)
            batch["x2"] = torch.tensor([2**40] * len(examples))
            return batch

        def forward(self, batch, return_loss, eval_mode):
            outputs, loss = super().forward(batch, return_loss, eval_mode)
            return outputs, loss + 0 * batch["x2"].float().mean()

    class Returned(Wide):
        def forward(self, batch, return_loss, eval_mode):
            outputs, loss = super().forward(batch, return_loss, eval_mode)
            return BatchData(outputs, x2=batch["x2"]), loss

    make(tmp_path, Wide()).train()
    with pytest.raises(TraceError, match="returns the column 'x2', whose integers exceed the"):
        make(tmp_path, Returned()).train()


def test_texts_stay_on_the_host(tmp_path):
    class WithTexts(Classifier):
        def collate(self, examples):
            batch = super().collate(examples)
            batch["text"] = [f"{example['x'][0]}" for example in examples]
            return batch

    trainer = make(tmp_path, WithTexts())
    trainer.train()
    assert len(trainer.prepare().converted.variants.graphs) == 4  # full and last batch, each phase


def test_frozen_and_unused_parameters_do_not_change(tmp_path):
    class Partly(Classifier):
        def __init__(self):
            super().__init__(weight_decay=0.5)
            self.model[0].bias.requires_grad_(False)
            self.model.unused = nn.Linear(2, 2)
            self.layers = [self.model[3]]

        def forward(self, batch, return_loss, eval_mode):
            hidden = self.model[1](self.model[0](batch["x"]))
            logits = self.layers[0](hidden)
            return BatchData(logits=logits), F.cross_entropy(logits, batch["y"])

    component = Partly()
    before = weights(component)
    make(tmp_path, component).train()
    after = weights(component)
    for name in ("0.bias", "unused.weight", "unused.bias"):
        assert torch.equal(before[name], after[name])
    assert not torch.equal(before["3.weight"], after["3.weight"])
    assert component.layers[0] is component.model[3]


def test_a_component_that_jax_computes_differently_is_refused(tmp_path, monkeypatch):
    from medjax_torch.lowerings.table import TABLE, Kind, Lowering

    relu = torch.ops.aten.relu.default
    monkeypatch.setitem(TABLE, relu, Lowering(lambda x: abs(x), Kind.PLAIN))
    trainer = make(tmp_path)
    with pytest.raises(VerificationError, match=r"(?s)differ.*Options\(verify=False\)"):
        trainer.train()
    make(tmp_path, options=Options(verify=False)).train()


def test_control_flow_may_depend_on_values_of_the_batch(tmp_path):
    class Deciding(Classifier):
        def forward(self, batch, return_loss, eval_mode):
            outputs, loss = super().forward(batch, return_loss, eval_mode)
            if batch["y"].sum() > 5:
                loss = loss * 2
            return outputs, loss

    component = Deciding()
    trainer = make(tmp_path, component, train=DATA[:40], nb_training_epochs=1, learning_rate=1e-9)
    history = trainer.train()
    batches = [batch for _, batch in epoch_batches(trainer.train_dataloader, 1)]
    losses = [component.forward(b, return_loss=True, eval_mode=False)[1].item() for b in batches]
    assert len({bool(b["y"].sum() > 5) for b in batches}) == 2
    assert history[0]["train"]["loss"] == pytest.approx(np.mean(losses), rel=1e-4)


def test_control_flow_that_depends_on_weights_is_refused_with_the_line(tmp_path):
    class Deciding(Classifier):
        def forward(self, batch, return_loss, eval_mode):
            outputs, loss = super().forward(batch, return_loss, eval_mode)
            if float(self.model[0].weight.detach().sum()) > 100:
                loss = loss * 2
            return outputs, loss

    message = r"test_trained_components\.py.*depends on model.0.weight, which changes in training"
    with pytest.raises(TraceError, match=message):
        make(tmp_path, Deciding()).train()
