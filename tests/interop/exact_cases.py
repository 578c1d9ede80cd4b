"""Losses of components that select by masks and need the exact shapes of a batch."""

import torch

EXACT = {}
"""Losses by name, each with the part of the message that says why."""

SLOW = {"each_class", "up_to_lengths"}
"""Losses whose many graphs take long."""


def exact(reason):
    def enter(function):
        EXACT[function.__name__] = function, reason
        return function

    return enter


@exact("aten._local_scalar_dense.default reads a number that is a size at .*in up_to_lengths")
def up_to_lengths(self, h, batch):
    ends = batch["mask"].sum(1).tolist()
    return sum(h[row, torch.arange(end)].pow(2).sum() for row, end in enumerate(ends))


@exact("a count is treated as a fixed number at .*in each_class")
def each_class(self, h, batch):
    labels = batch["labels"]
    return sum(h[labels == label].pow(2).mean() for label in labels.unique())


@exact("a count is treated as a fixed number at .*len\\(kept\\)")
def length(self, h, batch):
    kept = h[batch["mask"].bool()]
    return kept.pow(2).sum() / (len(kept) + 1)


@exact("aten.sort.default sorts along a size that varies at .*in ordered")
def ordered(self, h, batch):
    return h[batch["mask"].bool()].sort(0)[0][:2].sum()


@exact("aten.repeat_interleave.Tensor is not known to ignore padding at .*in repeated")
def repeated(self, h, batch):
    return h[:, 0].repeat_interleave(batch["mask"].sum(1), 0).pow(2).sum()


@exact("aten.bincount.default is not known to ignore padding at .*in counted")
def counted(self, h, batch):
    counts = torch.bincount(batch["mask"].sum(1))
    return (counts * torch.arange(counts.size(0))).sum() * h.pow(2).mean()


@exact("aten.view.default merges a size that varies with others")
def flattened(self, h, batch):
    kept = h[batch["mask"].bool()]
    return ((kept @ kept.T).flatten() ** 2 * 1.5).mean() + kept.T.flatten().cumsum(0).sum()
