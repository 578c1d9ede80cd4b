"""Columns without tensors: values that forward reads have to agree; others may differ."""

import warnings
from collections import UserDict

import pytest
import torch
from living_runs import both, train
from torch.nn import functional as F
from trained import Classifier
from transformers import BatchEncoding

import medjax_torch
from medjax_torch import BatchData
from medjax_torch.conversion.column_reads import ColumnReads
from medjax_torch.graph import TraceError

COLUMNS = {"text": ["a", "b"], "w": [0.5, 1.0], "task": "ner", "k": 3, "none": None}


def recorded(function, kind=BatchData):
    reads = ColumnReads()
    function(reads.wrap(kind({"x": torch.ones(2, 2), **COLUMNS})))
    return reads


@pytest.mark.parametrize("kind", [dict, BatchData, BatchEncoding, UserDict])
@pytest.mark.parametrize(
    ("function", "values"),
    [
        (lambda batch: batch["x"] * batch["w"][0], {"w"}),
        (lambda batch: batch.get("task"), {"task"}),
        (lambda batch: "text" in batch, set()),
        (lambda batch: {n: v for n, v in batch.items() if torch.is_tensor(v)}, {"k", "none", "w"}),
        (lambda batch: [n for n, v in batch.items() if v == "ner"], {*COLUMNS}),
        (lambda batch: dict(batch)["text"][0], {"k", "none", "text", "w"}),
        (lambda batch: [batch[n] for n in batch if n == "x"], set()),
        (lambda batch: batch.pop("text"), {"text"}),
    ],
)
def test_reads_of_a_batch_are_recorded(kind, function, values):
    assert recorded(function, kind).values - {"x"} == values


def test_moving_a_batch_to_a_device_reads_nothing():
    assert recorded(lambda batch: batch.to_device("cpu")["x"]).values == set()
    assert recorded(lambda batch: batch.to_device("cpu")["task"]).values == {"task"}


def test_a_recording_batch_keeps_its_type():
    for kind in (dict, BatchData, BatchEncoding):
        assert isinstance(ColumnReads().wrap(kind({"x": torch.ones(2)})), kind)


class Weighted(Classifier):
    """Reads columns without tensors, in the way that `read` does."""

    read = staticmethod(lambda batch: 1.0)

    def __init__(self):
        super().__init__(optimizer=torch.optim.SGD)

    def collate(self, examples):
        batch = super().collate(examples)
        total = float(batch["x"].sum())
        batch["weights"] = [abs(float(row.sum())) for row in batch["x"]]
        batch["scale"] = abs(total)
        batch["count"] = int(abs(total) * 10) + 1
        batch["name"] = f"batch {total}"
        if total > 0:
            batch["positive"] = "yes"
        batch["maybe"] = total if total > 0 else None
        return batch

    def forward(self, batch, return_loss, eval_mode):
        self.model.train(not eval_mode)
        logits = self.model(batch["x"])
        losses = F.cross_entropy(logits, batch["y"], reduction="none")
        return BatchData(logits=logits), (losses * self.read(batch)).mean()


def optional(batch):
    return 2.0 if batch.get("positive") == "yes" else 1.0


def maybe(batch):
    return 1.0 if batch["maybe"] is None else batch["maybe"]


def in_a_loop(batch):
    scale = 1.0
    for name, value in batch.items():
        if name == "scale" and isinstance(value, float | torch.Tensor):
            scale = scale * value
    return scale


def by_keywords(batch):
    def scaled(scale, **others):
        return scale

    return scaled(**batch)


@pytest.mark.parametrize(
    "read",
    [
        lambda batch: torch.tensor(batch["weights"]),
        lambda batch: torch.stack([torch.as_tensor(w) for w in batch["weights"]]),
        lambda batch: batch["scale"],
        lambda batch: 1.0 / batch["count"],
        optional,
        lambda batch: 2.0 if "positive" in batch else 1.0,
        maybe,
        in_a_loop,
        by_keywords,
    ],
    ids=["list", "stacked", "float", "int", "get", "in", "None", "items", "keywords"],
)
def test_columns_that_forward_reads_have_the_values_of_each_batch(tmp_path, read):
    kind = type("Reading", (Weighted,), {"read": staticmethod(read)})
    _, trainer = both(tmp_path, kind)
    graphs = [graph for graph in trainer.prepare().converted.variants.graphs if graph.train]
    assert len(graphs) <= 4


def test_a_text_that_differs_in_every_batch_does_not_matter_until_it_is_read(tmp_path):
    _, trainer = both(tmp_path, Weighted)
    assert len(trainer.prepare().converted.variants.graphs) <= 4

    def read(batch):
        return float(len(batch["name"]) + sum(map(ord, batch["name"])))

    kind = type("Reading", (Weighted,), {"read": staticmethod(read)})
    with pytest.raises(TraceError, match="column 'name'"), warnings.catch_warnings():
        train(medjax_torch, tmp_path / "text", kind(), lambda *_: {}, batch_size=2)


@pytest.mark.parametrize("column", ["name", "ids"])
def test_a_column_that_forward_returns_is_named_as_an_output(tmp_path, column):
    class Returning(Weighted):
        def collate(self, examples):
            batch = super().collate(examples)
            batch["ids"] = [f"{batch['name']}: {row}" for row in range(len(examples))]
            return batch

        def forward(self, batch, return_loss, eval_mode):
            outputs, loss = super().forward(batch, return_loss, eval_mode)
            return BatchData(**outputs, returned=batch[column]), loss

    with pytest.raises(TraceError, match=rf"returns the column '{column}' .*in.*prepare_batch"):
        train(medjax_torch, tmp_path, Returning(), lambda *_: {}, batch_size=2)
