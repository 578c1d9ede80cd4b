"""Padding counts as harmless if and only if torch computes the same with it."""

import re

import numpy as np
import pytest
import torch
from graph_cases import Component
from torch import nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from medjax_torch.batches.padding import Ragged
from medjax_torch.component_state import find
from medjax_torch.conversion.forward_call import ForwardCall
from medjax_torch.verification.cropping import strip
from medjax_torch.verification.moved_weights import moved
from medjax_torch.verification.padded_pair import PaddingProof
from medjax_torch.verification.padding_kind import Proved
from medjax_torch.verification.padding_proof import Prover

IDS = torch.tensor([[1, 2, 3, 4], [5, 6, 0, 0]])
BATCH = {"ids": IDS, "labels": torch.where(IDS > 0, IDS % 3, -100), "kind": "words"}
LENGTH = Ragged((("ids", 1), ("labels", 1)), {"ids": 0, "labels": -100}, (7,))


def proved(forward, train=True, batch=BATCH, ragged=LENGTH, unpacks=None, **content):
    torch.manual_seed(0)
    content.setdefault("embed", nn.Embedding(8, 6, padding_idx=0))
    content.setdefault("head", nn.Linear(6, 3))
    component = Component(forward, **content)
    call = ForwardCall(
        lambda values, mode: component.forward(values, True, mode), batch, train=train
    )
    prover = Prover(call, find(component), batch, train=train)
    prover.unpacks = unpacks
    return prover.prove(ragged)


def loss_of(logits, batch):
    return F.cross_entropy(logits.flatten(0, 1), batch["labels"].flatten())


def tagging(component, batch):
    hidden = F.dropout(component.embed(batch["ids"]), 0.6)
    padding = batch["ids"] == 0
    attended, weights = component.attention(hidden, hidden, hidden, padding)
    logits = component.head(attended)
    outputs = {
        "logits": logits,
        "more": [weights, logits.argmax(-1)],
        "lengths": (~padding).sum(1),
        "kind": batch["kind"],
    }
    return outputs, loss_of(logits, batch)


def recurrent(component, batch):
    lengths = (batch["ids"] != 0).sum(1)
    packed = pack_padded_sequence(component.embed(batch["ids"]), lengths, batch_first=True)
    total = batch["ids"].size(1) if component.takes_total else None
    states, _ = pad_packed_sequence(component.layer(packed)[0], True, total_length=total)
    logits = component.head(states)
    return {"logits": logits}, loss_of(logits, {"labels": batch["labels"][:, : states.size(1)]})


def test_recurrent_layers_unpack_to_a_full_batch_or_a_total():
    layer = nn.GRU(6, 6, batch_first=True)
    for takes_total in (True, False):
        found = proved(recurrent, layer=layer, takes_total=takes_total)
        assert isinstance(found, PaddingProof)
        assert found.axes == {"logits": (1,)}


def test_a_batch_longer_than_its_longest_row_has_a_remedy():
    def longest(component, batch):
        outputs, loss = recurrent(component, batch)
        return outputs, loss * batch["ids"].size(1)

    batch = {"ids": F.pad(IDS, (0, 1)), "labels": F.pad(IDS % 3, (0, 1), value=-100)}
    found = proved(longest, batch=batch, layer=nn.GRU(6, 6, batch_first=True), takes_total=False)
    assert re.search("padding changes the loss.*pad_packed_sequence with total_length", found)


def test_a_batch_that_is_not_full_is_no_proof_for_those_that_are():
    content = {"layer": nn.GRU(6, 6, batch_first=True), "takes_total": False}
    batch = {"ids": F.pad(IDS, (0, 1)), "labels": F.pad(IDS % 3, (0, 1), value=-100)}
    # Alone it would: logits do not grow, as its longest row does not.
    assert proved(recurrent, batch=batch, unpacks=False, **content).axes == {}
    harm = proved(recurrent, batch=batch, unpacks=True, **content)
    assert re.search("longest row .* is shorter than the batch.*with total_length", harm)


def chained(component, batch):
    """Score tags and, from the second token on, the transitions between them."""
    scores = component.head(component.embed(batch["ids"]))
    steps = scores.softmax(-1)
    follows = torch.einsum("bti,ij,btj->bt", steps[:, :-1], component.steps, steps[:, 1:])
    follows = follows * (batch["ids"][:, 1:] != 0)
    loss = loss_of(scores, batch)
    return {"scores": scores}, loss + follows.sum() if scores.shape[1] > 1 else loss


def test_batches_that_give_a_parameter_no_gradient_are_not_padded():
    steps = nn.Parameter(torch.ones(3, 3))
    found = proved(chained, steps=steps)
    assert isinstance(found, PaddingProof)
    assert found.least == 2
    one, two = ({name: BATCH[name][:, :size] for name in ("ids", "labels")} for size in (1, 2))
    assert [Proved(found, []).target(batch) for batch in (one, two)] == [1, 7]


def test_a_parameter_that_only_padding_trains_is_harmful():
    def trained_by_padding(component, batch):
        loss = loss_of(component.head(component.embed(batch["ids"])), batch)
        return {}, loss + component.steps.mean() if (batch["ids"] == 0).any() else loss

    batch = {**BATCH, "ids": IDS.clamp(min=1)}
    harm = proved(trained_by_padding, batch=batch, steps=nn.Parameter(torch.zeros(3)))
    assert "padding changes the gradient of steps: only in the padded batch" in harm


def attention():
    return nn.MultiheadAttention(6, 2, batch_first=True)


@pytest.mark.parametrize("train", [True, False])
def test_masked_attention(train):
    proof = proved(tagging, train, attention=attention())
    assert isinstance(proof, PaddingProof)
    assert proof.tried[0][:2] == (4, 7)
    assert proof.axes == {"logits": (1,), "more.0": (1, 2), "more.1": (1,)}
    assert proof.relative < 1e-5


def test_outputs_that_do_not_follow_the_length_are_not_cropped():
    def forward(component, batch):
        mask = (batch["ids"] > 0).unsqueeze(-1)
        pooled = (component.embed(batch["ids"]) * mask).sum(1) / mask.sum(1)
        return {"pooled": pooled}, component.head(pooled).square().mean()

    assert proved(forward).axes == {}


def averaged(component, batch):
    logits = component.head(component.embed(batch["ids"]).mean(1, keepdim=True) + 0)
    return {"logits": logits}, logits.square().mean()


def normalised(component, batch):
    hidden = component.norm(component.embed(batch["ids"]).flatten(0, 1)).view(2, -1, 6)
    logits = component.head(hidden)
    return {}, loss_of(logits, batch)


def counted(component, batch):
    component.seen += batch["ids"].numel()
    return {}, loss_of(component.head(component.embed(batch["ids"])), batch)


def regularised(component, batch):
    loss = loss_of(component.head(component.embed(batch["ids"])), batch)
    size = component.spare.weight.square().sum() * batch["ids"].shape[1]
    return {}, loss + size - size.detach()


def flattened(component, batch):
    logits = component.head(component.embed(batch["ids"]))
    return {"logits": logits.flatten(0, 1)}, loss_of(logits, batch)


def fixed(component, batch):
    return {}, component.over(component.embed(batch["ids"]).transpose(1, 2)).sum()


def reversed_in_time(component, batch):
    logits = component.head(component.embed(batch["ids"]).flip(1))
    return {"logits": logits}, component.head.weight.sum()


HARMS = {
    "a mean over padding": (averaged, {}, r"padding changes .*: relative difference"),
    "a batch norm": (normalised, {"norm": nn.BatchNorm1d(6)}, r"padding changes .*\(and \d+ more"),
    "state": (counted, {"seen": torch.tensor(0)}, "padding changes seen after the step"),
    "gradients": (regularised, {"spare": nn.Linear(2, 2)}, "changes the gradient of spare.weight"),
    "another shape": (flattened, {}, r"output logits has shape \(14, 3\) .* cannot be cropped"),
    "a fixed length": (fixed, {"over": nn.Linear(4, 1)}, "forward raises RuntimeError on the pad"),
    "padding in front": (reversed_in_time, {}, "padding changes output logits: .* in the padded"),
}


@pytest.mark.parametrize("name", HARMS)
def test_harm_is_described(name):
    forward, content, message = HARMS[name]
    reason = proved(forward, **content)
    assert isinstance(reason, str)
    assert re.search(message, reason), reason


def test_an_exception_on_the_batch_itself_is_raised():
    with pytest.raises(RuntimeError, match="shape"):
        proved(fixed, over=nn.Linear(5, 1))


def zero_bias():
    layer = nn.Linear(6, 6)
    nn.init.zeros_(layer.bias)
    return layer


def summed(component, batch):
    hidden = component.hidden(component.embed(batch["ids"])).relu().sum(1)
    return {}, component.head(hidden).square().mean()


def largest(component, batch):
    hidden = component.hidden(component.embed(batch["ids"])).relu().amax(1)
    return {}, component.head(hidden).square().mean()


def gated(component, batch):
    hidden = component.embed(batch["ids"])
    read, _ = component.lstm(hidden)
    return {}, component.head((hidden + component.gate * read).sum(1)).square().mean()


def scaled(component, batch):
    """A scale of 1e-6, the initial one of deep vision models, hides what padding changes."""
    hidden = component.embed(batch["ids"])
    return {}, component.head(hidden.sum(1) + component.scale * hidden.mean(1)).square().mean()


TRUE_AT_FIRST = {
    "a sum at zero bias": (summed, {"hidden": zero_bias}),
    "a maximum at zero bias": (largest, {"hidden": zero_bias}),
    "a gate of 0": (
        gated,
        {
            "lstm": lambda: nn.LSTM(6, 3, bidirectional=True, batch_first=True),
            "gate": lambda: nn.Parameter(torch.zeros(())),
        },
    ),
    "a tiny scale": (scaled, {"scale": lambda: nn.Parameter(torch.full((6,), 1e-6))}),
}


@pytest.mark.parametrize("train", [True, False])
@pytest.mark.parametrize("name", TRUE_AT_FIRST)
def test_equality_at_the_initial_weights_alone_is_no_proof(name, train):
    forward, content = TRUE_AT_FIRST[name]
    made = {name: make() for name, make in content.items()}
    reason = proved(forward, train, **made)
    assert isinstance(reason, str)
    assert reason.startswith("padding changes")


class Counting(nn.Module):
    """Has buffers that count the training batches."""

    def __init__(self, kind):
        super().__init__()
        self.register_buffer("count", torch.zeros((), dtype=kind))

    def forward(self, train):
        if train:
            self.count += 1
        return self.count


@pytest.mark.parametrize("kind", [torch.int64, torch.float32])
@pytest.mark.parametrize("first", [5, 10_000])
def test_a_term_that_a_counter_switches_on_later_is_tested(kind, first):
    def forward(component, batch):
        logits = component.head(component.embed(batch["ids"]))
        late = torch.where(component.counting(train=True) > first, logits.square().mean(), 0.0)
        return {"logits": logits}, loss_of(logits, batch) + late

    reason = proved(forward, counting=Counting(kind))
    assert isinstance(reason, str)
    assert reason.startswith("padding changes")


@pytest.mark.parametrize("train", [True, False])
def test_a_buffer_that_is_a_position_is_not_moved_out_of_range(train):
    def forward(component, batch):
        logits = component.head(component.embed(batch["ids"]))
        position = component.counting(train)
        return {"logits": logits}, loss_of(logits, batch) * component.scales[position]

    scales = nn.Parameter(torch.rand(4))
    assert isinstance(
        proved(forward, train, counting=Counting(torch.int64), scales=scales), PaddingProof
    )


def test_a_maximum_over_many_entries_is_tested_on_few():
    """One of 64 entries is larger than the padding; not even a single one may be."""
    torch.manual_seed(1)
    ids = torch.randint(1, 8, (4, 64))
    batch = {"ids": ids, "labels": ids % 3, "kind": "words"}
    reason = proved(largest, batch=batch, ragged=LENGTH._replace(ladder=(80,)), hidden=zero_bias())
    assert isinstance(reason, str)


def test_the_embedding_of_padding_is_not_moved():
    """A sum of embeddings needs no mask if padding is embedded as 0, which training preserves."""

    def forward(component, batch):
        return {}, component.head(component.embed(batch["ids"]).sum(1)).square().mean()

    assert isinstance(proved(forward), PaddingProof)
    assert isinstance(proved(forward, train=False), PaddingProof)


def test_moved_weights_keep_their_kind():
    gates = torch.tensor([0.0, 1.0, 1.0, 0.0])  # an LSTM's bias
    masks = torch.tril(torch.ones(3, 3))
    component = Component(
        None,
        model=nn.Sequential(nn.Embedding(4, 2, padding_idx=0), nn.BatchNorm1d(2)),
        bias=nn.Parameter(gates),
        masks=masks,
        step=torch.tensor(3),
    )
    inventory = find(component)
    gradients = {"bias": np.array([1.0, 0, 0, 0])}
    other = moved(inventory, gradients, 0)
    assert (inventory.parameters["bias"] == gates).all()
    assert other.parameters["bias"].requires_grad
    assert [bool(n) for n in other.parameters["bias"] != gates] == [True, True, True, False]
    assert (other.parameters["model.0.weight"][0] == 0).all()
    assert (
        other.parameters["model.0.weight"][1:] != inventory.parameters["model.0.weight"][1:]
    ).all()
    assert (other.buffers["model.1.running_var"] > 0).all()
    assert (other.buffers["model.1.running_var"] != 1).all()
    assert (other.buffers["model.1.running_mean"] != 0).all()
    assert torch.equal(other.buffers["masks"] != 0, masks != 0)
    assert other.buffers["step"] == 3
    again = moved(inventory, gradients, 0).parameters["bias"]
    assert torch.equal(again, other.parameters["bias"])
    assert not torch.equal(again, moved(inventory, gradients, 1).parameters["bias"])


def test_a_length_limit_does_not_count_as_harm():
    """There are only enough positions for this batch; shorter ones may be padded to its length."""

    def forward(component, batch):
        hidden = component.embed(batch["ids"]) + component.places.weight[: batch["ids"].shape[1]]
        return {}, loss_of(component.head(hidden), batch)

    proof = proved(forward, places=nn.Embedding(4, 6))
    assert isinstance(proof, PaddingProof)
    assert max(to for _, to, _ in proof.tried) == 4


def test_rows_padded_in_front_are_not_shortened_to_padding():
    ids = torch.tensor([[1, 2, 3, 4], [0, 0, 5, 6]])
    batch = {"input_ids": ids, "attention_mask": (ids > 0).long()}
    column_axes = (("input_ids", 1), ("attention_mask", 1))

    def forward(component, batch):
        real = batch["attention_mask"].unsqueeze(-1)
        mean = (component.embed(batch["input_ids"]) * real).sum(1) / real.sum(1)
        return {"mean": mean}, component.head(mean).square().mean()

    ragged = Ragged(column_axes, {"input_ids": 0, "attention_mask": 0}, (7,))
    assert isinstance(proved(forward, batch=batch, ragged=ragged), PaddingProof)


def test_strip_crops_tensors_and_arrays_in_nested_outputs():
    outputs = {
        "scores": torch.arange(30).reshape(2, 5, 3),
        "more": [np.zeros((2, 5, 5)), "text"],
        "pooled": torch.zeros(2, 5),
    }
    cut = strip(outputs, {"scores": {1: 4}, "more.0": {1: 4, 2: 4}})
    torch.testing.assert_close(cut["scores"], outputs["scores"][:, :4])
    assert cut["more"][0].shape == (2, 4, 4)
    assert cut["more"][1] == "text"
    assert cut["pooled"].shape == (2, 5)
