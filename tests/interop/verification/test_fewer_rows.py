"""A few rows stand for a batch where they can, and all of them where they cannot."""

import pytest
import torch
from test_padding_proof import LENGTH, loss_of, proved

from medjax_torch.batches.padding import Ragged, resized
from medjax_torch.verification import padding_proof
from medjax_torch.verification.fewer_rows import fewer_rows
from medjax_torch.verification.padded_pair import PaddingProof
from medjax_torch.verification.reference import reference

LENGTHS = (3, 9, 1, 7, 5, 2, 8, 4)
IDS = torch.where(torch.arange(9) < torch.tensor(LENGTHS)[:, None], torch.arange(9) % 7 + 1, 0)
LABELS = torch.where(IDS > 0, IDS % 3, -100)
BATCH = {"ids": IDS, "labels": LABELS, "kind": "words"}
RAGGED = LENGTH._replace(ladder=(12,))


def lengths(batch):
    return (batch["ids"] > 0).sum(1).tolist()


def test_the_longest_row_is_always_there_and_the_others_change():
    taken = [lengths(fewer_rows(BATCH, [RAGGED], turn)) for turn in range(3)]
    assert taken == [[9, 8, 5, 3], [9, 7, 4, 2], [9, 8, 5, 3]]
    assert fewer_rows(BATCH, [RAGGED])["kind"] == "words"


def test_columns_of_any_number_of_axes_tell_the_lengths():
    features = torch.zeros(8, 2, 9)
    for row, length in enumerate(LENGTHS):
        features[row, 1, :length] = 0.5
    ragged = Ragged((("x", 2),), {"x": 0}, ())
    few = fewer_rows({"x": features, "names": list(LENGTHS)}, [ragged])
    assert few["names"] == [9, 8, 5, 3]
    assert (few["x"] != 0).any(1).sum(1).tolist() == [9, 8, 5, 3]


@pytest.mark.parametrize(
    "more",
    [
        {"weights": torch.ones(3)},
        {"scale": torch.tensor(1.0)},
        {"nested": {"ids": IDS}},
        {"sparse": IDS.to_sparse()},
    ],
    ids=lambda more: next(iter(more)),
)
def test_all_rows_are_taken_where_they_are_not_evident(more):
    batch = {**BATCH, **more}
    assert fewer_rows(batch, [RAGGED]) is batch


def test_rows_that_are_padded_themselves_are_all_taken():
    rows = Ragged((("ids", 0), ("labels", 0)), {"ids": 0, "labels": -100}, ())
    assert fewer_rows(BATCH, [RAGGED, rows]) is BATCH


@pytest.fixture
def rows_of_runs(monkeypatch):
    """The number of rows of each run of forward in a proof."""
    seen = []

    def watched(call, inventory, batch, **options):
        seen.append(len(batch["ids"]))
        return reference(call, inventory, batch, **options)

    monkeypatch.setattr(padding_proof, "reference", watched)
    return seen


def tagging(component, batch):
    return {}, loss_of(component.head(component.embed(batch["ids"])), batch)


def test_other_weights_are_tried_on_few_rows(rows_of_runs):
    proof = proved(tagging, batch=BATCH, ragged=RAGGED)
    assert isinstance(proof, PaddingProof)
    assert rows_of_runs == [8, 8, 4, 4, 4, 4]


def test_a_batch_that_forward_needs_whole_stays_whole(rows_of_runs):
    def forward(component, batch):
        assert len(batch["ids"]) == 8
        return tagging(component, batch)

    proof = proved(forward, batch=BATCH, ragged=RAGGED)
    assert isinstance(proof, PaddingProof)
    assert rows_of_runs == [8, 8, 4, 8, 8, 4, 8, 8]


@pytest.mark.parametrize("train", [True, False])
@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_rows_without_a_label_say_nothing(reduction, train, rows_of_runs):
    """The loss of these is not a number or does not depend on the weights."""
    cut = resized({**BATCH, "names": list(range(8))}, [(RAGGED, 4)])
    labels = LABELS.clone()
    labels[fewer_rows(cut, [RAGGED])["names"]] = -100

    def forward(component, batch):
        logits = component.head(component.embed(batch["ids"])).flatten(0, 1)
        labels = batch["labels"].flatten()
        return {}, torch.nn.functional.cross_entropy(logits, labels, reduction=reduction)

    proof = proved(forward, train, batch={**BATCH, "labels": labels}, ragged=RAGGED)
    assert isinstance(proof, PaddingProof)
    assert rows_of_runs[2:5] == [4, 8, 8]
