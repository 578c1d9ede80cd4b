"""Padding where forward decides by the size of the batch, by draws, or by what training changes."""

import logging

import pytest
import torch
from test_padding_proof import proved
from torch import nn
from torch.nn import functional as F

from medjax_torch import BatchData
from medjax_torch.batches.padding import Ragged
from medjax_torch.component_state import find
from medjax_torch.verification.padded_pair import PaddingProof
from medjax_torch.verification.padding_policy import Padding
from medjax_torch.verification.padding_proof import Prover
from medjax_torch.verification.trail import Trail, is_alike

LADDER = (8, 16, 24, 32, 48)


def batch_of(size, rows=4):
    ids = torch.arange(rows * size).reshape(rows, size) % 17 + 1
    for row in range(1, rows):
        ids[row, max(1, size - row) :] = 0
    mask = (ids > 0).long()
    return BatchData(input_ids=ids, attention_mask=mask, labels=ids[:, 0] % 3)


class Document:
    """Classifies texts by the mean of their tokens, or of those that `chosen` returns."""

    def __init__(self, chosen=None):
        torch.manual_seed(0)
        self.model = nn.ModuleDict({"embed": nn.Embedding(18, 6), "head": nn.Linear(6, 3)})
        self.chosen = chosen or (lambda ids: ids)

    def forward(self, batch):
        ids = self.chosen(batch["input_ids"])
        real = (ids > 0).float().unsqueeze(-1)
        mean = (self.model["embed"](ids) * real).sum(1) / real.sum(1).clamp(min=1)
        logits = self.model["head"](mean)
        return BatchData(logits=logits), F.cross_entropy(logits, batch["labels"])


def padded_sizes(component, sizes, ladder=LADDER):
    """Return the sizes to which batches are padded, and how many batches were run in torch."""
    runs = []

    def prover(batch, train):
        found = Prover(component.forward, find(component), batch, train=train)
        run = found._run
        found._run = lambda *args: runs.append(batch) or run(*args)
        return found

    padding = Padding(prover, {}, dict.fromkeys((True, False), ladder))
    lengths = [padding.pad(batch_of(size), train=True)["input_ids"].shape[1] for size in sizes]
    return lengths, len(runs)


def ends(ids):
    return torch.cat([ids[:, :10], ids[:, -10:]], 1) if ids.size(1) > 20 else ids


def ends_without_a_branch(ids):
    size = ids.size(1)
    return torch.cat([ids[:, :10], ids[:, max(10, size - 10) :]], 1)


def in_windows(ids):
    """Return the text without the last window, unless there is only one."""
    count = max(1, -(-ids.size(1) // 10) - 1)
    return ids[:, : 10 * count]


@pytest.mark.parametrize("chosen", [ends, ends_without_a_branch])
@pytest.mark.parametrize("first", [7, 12, 23])
def test_texts_that_are_cut_to_their_ends_are_padded_while_they_are_short(chosen, first):
    sizes = [first, 9, 22, 18, 31, 30, 19, 22, 17, 7]
    lengths, _ = padded_sizes(Document(chosen), sizes)
    for size, length in zip([first, *sizes], [first, *lengths], strict=True):
        if length != size:
            # Content that forward sees is the same for every batch that is padded.
            component, batch = Document(chosen), batch_of(size)
            longer = F.pad(batch["input_ids"], (0, length - size))
            torch.testing.assert_close(
                component.forward({**batch, "input_ids": longer})[1], component.forward(batch)[1]
            )
    assert lengths[sizes.index(31)] == 31
    assert 8 in lengths or first == 23


def test_a_few_long_texts_after_a_short_one_on_one_rung(caplog):
    caplog.set_level(logging.WARNING, "medjax")
    lengths, _ = padded_sizes(Document(ends), [7, 43, 42, 7], ladder=(44,))
    assert lengths[:3] == [44, 43, 42]
    assert (
        "Batches that would be padded to 44 or more keep their exact shapes, each of which is "
        "traced and compiled: padding input_ids, attention_mask from 43 to 44 is not harmless, "
        "because padding changes" in caplog.text
    )


def test_windows_of_a_text():
    lengths, _ = padded_sizes(Document(in_windows), [7, 23, 18, 23, 17], LADDER)
    assert lengths == [8, 24, 18, 24, 17]  # 23 tokens and 24 have the same windows


def test_a_forward_that_does_the_same_at_all_sizes_is_tried_at_few():
    sizes = [14, 42, 60, 10, 22, 13, 37, 34, 36, 47, 5, 59, 33, 44, 9, 18]
    lengths, runs = padded_sizes(Document(), sizes, (8, 16, 24, 32, 40, 48, 64))
    assert lengths == [16, 48, 64, 16, 24, 16, 40, 40, 40, 48, 8, 64, 40, 48, 16, 24]
    assert runs <= 14
    by_size = Document(lambda ids: ids + 0 if ids.size(1) > 15 else ids)
    lengths, more = padded_sizes(by_size, [7, 14, 13, 12, 11, 10])
    assert lengths == [8, 16, 16, 16, 16, 16]
    assert more > runs + 5  # each size is tried


def called(function, size):
    with Trail() as trail:
        function(torch.ones(2, size))
    return trail.operations


def loop(x):
    total = x[:, 0]
    for t in range(1, x.shape[1]):
        total = total + x[:, t]
    return total


@pytest.mark.parametrize(
    ("function", "same"),
    [
        (lambda x: x.sum(1), True),
        (lambda x: x.view(2 * x.shape[1], 1)[:, 0], True),
        (lambda x: x[:, :-1] * torch.arange(x.shape[1] - 1), True),
        (loop, True),
        (lambda x: loop(x[:, :9]), False),
        (lambda x: x[:, : min(9, x.shape[1])], False),
        (lambda x: x * (1 / x.shape[1]), False),
        (lambda x: x.chunk(x.shape[1] // 4, 1), False),
        (lambda x: x.relu() if x.shape[1] > 9 else x, False),
    ],
)
def test_what_forward_calls_at_two_sizes(function, same):
    assert is_alike(called(function, 5), called(function, 18), [13]) == same
    assert not is_alike(called(function, 5), called(function, 6), [1])


TOKENS = Ragged(
    (("input_ids", 1), ("attention_mask", 1)), {"input_ids": 0, "attention_mask": 0}, (16,)
)


DRAWS = {
    "argmax": lambda real: (torch.rand(real.shape) * real).argmax(1),
    "argmin": lambda real: (torch.rand_like(real) - real).argmin(1),
    "multinomial": lambda real: torch.multinomial(real, 1)[:, 0],
    "categorical": lambda real: torch.distributions.Categorical(real).sample(),
    "gumbel": lambda real: F.gumbel_softmax(real.log().clamp(min=-99), hard=True).argmax(1),
}


@pytest.mark.parametrize("masks", [False, True])
@pytest.mark.parametrize("name", DRAWS)
def test_a_draw_among_all_tokens_falls_on_padding(name, masks):
    def forward(component, batch):
        real = batch["attention_mask"].float()
        place = DRAWS[name](real if masks else torch.ones_like(real))
        token = component.embed(batch["input_ids"].gather(1, place[:, None]))
        return {"place": place}, component.head(token).square().mean()

    found = proved(forward, batch=batch_of(12), ragged=TOKENS, embed=nn.Embedding(18, 6))
    assert isinstance(found, PaddingProof) == masks, found


CHANCES = {
    "rand": lambda ids: torch.rand(ids.shape) < 0.1,
    "bernoulli": lambda ids: torch.bernoulli(torch.full(ids.shape, 0.9)) == 0,
    "dropout": lambda ids: F.dropout(torch.ones(ids.shape), 0.1) == 0,
    "normal": lambda ids: torch.randn(ids.shape) < -1,
}


@pytest.mark.parametrize("masks", [False, True])
@pytest.mark.parametrize("name", CHANCES)
def test_tokens_that_are_replaced_by_chance_are_padding_too(name, masks):
    def forward(component, batch):
        replaced = CHANCES[name](batch["input_ids"])
        if masks:
            replaced = replaced & batch["attention_mask"].bool()
        hidden = component.embed(batch["input_ids"].masked_fill(replaced, 17)).sum(1)
        return {}, component.head(hidden).square().mean()

    embed = nn.Embedding(18, 6, padding_idx=0)
    found = proved(forward, batch=batch_of(12), ragged=TOKENS, embed=embed)
    assert isinstance(found, PaddingProof) == masks, found


@pytest.mark.parametrize("shape", [(), (1,), (3,)])
@pytest.mark.parametrize("reads", ["threshold", "table"])
def test_a_counter_of_any_shape_may_switch_on_what_reads_padding(shape, reads):
    def forward(component, batch):
        hidden = component.embed(batch["input_ids"])
        component.seen += 1
        table = torch.tensor([0.0, 0.0, 1.0])
        if reads == "threshold":
            weight = torch.where(component.seen > 4, 1.0, 0.0)
        else:
            weight = table.index_select(0, component.seen.flatten()[:1] - 1)
        return {}, component.head(hidden[:, 0]).square().mean() + (weight * hidden.mean()).sum()

    found = proved(
        forward,
        batch=batch_of(12),
        ragged=TOKENS,
        embed=nn.Embedding(18, 6),
        seen=torch.zeros(shape, dtype=torch.int64),
    )
    assert isinstance(found, str)


def test_a_counter_of_eight_bits_is_no_obstacle():
    def forward(component, batch):
        component.seen += 1
        hidden = component.embed(batch["input_ids"]) * batch["attention_mask"].unsqueeze(-1)
        return {}, component.head(hidden.sum(1)).square().mean()

    seen = torch.zeros(1, dtype=torch.uint8)
    embed = nn.Embedding(18, 6)
    found = proved(forward, batch=batch_of(12), ragged=TOKENS, embed=embed, seen=seen)
    assert isinstance(found, PaddingProof), found


@pytest.mark.parametrize("masks", [False, True])
@pytest.mark.parametrize("shape", [(1,), (1, 1, 1)])
def test_a_bias_below_zero_hides_what_it_adds_once_it_is_trained(shape, masks):
    def forward(component, batch):
        count = component.embed(batch["input_ids"]).sum(2, keepdim=True)
        hidden = F.relu(count + component.bias)
        if masks:
            hidden = hidden * batch["attention_mask"].unsqueeze(-1)
        return {}, (hidden.sum(1) - 1).square().mean()

    bias = nn.Parameter(torch.full(shape, -1.0))
    embed = nn.Embedding(18, 6, padding_idx=0)
    found = proved(forward, batch=batch_of(12), ragged=TOKENS, embed=embed, bias=bias)
    assert isinstance(found, PaddingProof) == masks, found


@pytest.mark.parametrize("reads", [False, True])
def test_padding_that_attends_to_padding_is_told(reads, caplog):
    """The padding of rows gets the mean of all tokens, as where every score is masked."""

    class Attending(Document):
        def forward(self, batch):
            hidden = self.model["embed"](batch["input_ids"])
            mask = (
                batch["attention_mask"].bool()[:, None, :]
                & batch["attention_mask"].bool()[..., None]
            )
            scores = torch.zeros(mask.shape).masked_fill(~mask, torch.finfo(torch.float32).min)
            logits = self.model["head"](scores.softmax(-1) @ hidden)
            real = batch["attention_mask"].unsqueeze(-1)
            read = logits if reads else logits * real
            return BatchData(logits=logits), read.square().sum()

    caplog.set_level(logging.WARNING, "medjax")
    lengths, _ = padded_sizes(Attending(), [12, 22])
    assert lengths == ([12, 22] if reads else [16, 24])
    assert ("output logits differs from torch's where attention_mask is 0" in caplog.text) != reads


def test_padding_that_attends_to_padding_after_a_while_is_told_then(caplog):
    class Later(Document):
        share = 0.0

        def forward(self, batch):
            hidden = self.model["embed"](batch["input_ids"])
            real = batch["attention_mask"].unsqueeze(-1)
            logits = self.model["head"](hidden + self.share * (1 - real) * hidden.mean(1, True))
            return BatchData(logits=logits), (logits * real).square().sum()

    component = Later()

    def prover(batch, train):
        return Prover(component.forward, find(component), batch, train=train)

    caplog.set_level(logging.WARNING, "medjax")
    padding = Padding(prover, {}, dict.fromkeys((True, False), LADDER))
    assert padding.pad(batch_of(12), train=True)["input_ids"].shape[1] == 16
    assert caplog.text == ""
    component.share = 1.0
    assert padding.pad(batch_of(22), train=True)["input_ids"].shape[1] == 24
    assert caplog.text.count("output logits differs from torch's where attention_mask is 0") == 1
