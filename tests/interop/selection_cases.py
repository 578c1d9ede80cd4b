"""Common losses of components that select by masks."""

import torch
from torch import nn
from torch.nn import functional as F

CLASSES = 3

SELECTED = {}
"""Losses by name; each takes the component, hidden states (4, 6, 3) and the batch."""


def selects(function):
    SELECTED[function.__name__] = function
    return function


def content():
    """Return the modules that the losses use."""
    torch.manual_seed(1)
    return {
        "model": nn.Linear(5, CLASSES),
        "linear": nn.Linear(CLASSES, CLASSES),
        "pairs": nn.Linear(2 * CLASSES, CLASSES),
        "normalise": nn.BatchNorm1d(CLASSES),
        "layer": nn.LayerNorm(CLASSES),
        "table": nn.Embedding(CLASSES, 4),
        "attend": nn.MultiheadAttention(CLASSES, 1, batch_first=True),
    }


def batch(kind, seed=0):
    """Return points, a mask and labels that are -100 where the mask is 0."""
    draw = torch.Generator().manual_seed(seed)
    points = torch.randn(4, 6, 5, generator=draw)
    labels = torch.randint(0, CLASSES, (4, 6), generator=draw)
    mask = (torch.rand(4, 6, generator=draw) < 0.5).long()
    if kind in ("none", "one"):
        mask = torch.zeros_like(mask)
        mask[2, 3] = int(kind == "one")
    if kind == "all":
        mask = torch.ones_like(mask)
    return {"x": points, "mask": mask, "labels": torch.where(mask == 1, labels, -100)}


@selects
def active_loss(self, h, batch):
    active = batch["mask"].view(-1) == 1
    return F.cross_entropy(h.view(-1, CLASSES)[active], batch["labels"].view(-1)[active])


@selects
def active_labels(self, h, batch):
    active = batch["mask"].view(-1) == 1
    ignored = torch.tensor(-100).type_as(batch["labels"])
    labels = torch.where(active, batch["labels"].view(-1), ignored)
    return F.cross_entropy(h.view(-1, CLASSES), labels)


@selects
def rows_by_labels(self, h, batch):
    kept = batch["labels"] != -100
    return F.cross_entropy(self.linear(h[kept]), batch["labels"][kept])


@selects
def weighted_and_smoothed(self, h, batch):
    kept = batch["labels"] != -100
    weight = torch.tensor([1.0, 2.0, 3.0])
    return F.cross_entropy(h[kept], batch["labels"][kept], weight=weight, label_smoothing=0.1)


@selects
def linear_sum(self, h, batch):
    return self.linear(h[batch["mask"].bool()]).sum()


@selects
def linear_mean(self, h, batch):
    return self.linear(h[batch["mask"].bool()]).pow(2).mean()


@selects
def dropped(self, h, batch):
    return F.dropout(self.linear(h[batch["mask"].bool()]), 0.5).pow(2).mean()


@selects
def coordinates(self, h, batch):
    row, column = batch["mask"].nonzero(as_tuple=True)
    return self.linear(h[row, column]).pow(2).mean()


@selects
def masked_select(self, h, batch):
    return h.pow(2).sum(-1).masked_select(batch["mask"].bool()).mean()


@selects
def masked_select_of_all_features(self, h, batch):
    return h.pow(3).masked_select(batch["mask"].bool().unsqueeze(-1)).mean()


@selects
def loss_of_mask(self, h, batch):
    labels = batch["labels"].view(-1).clamp(min=0)
    loss = F.cross_entropy(h.view(-1, CLASSES), labels, reduction="none")
    return loss[batch["mask"].view(-1).bool()].mean()


@selects
def class_weights(self, h, batch):
    labels = batch["labels"]
    counts = torch.bincount(labels[labels >= 0], minlength=CLASSES)
    return F.cross_entropy(h.view(-1, CLASSES), labels.view(-1), weight=1 / (counts.float() + 1))


@selects
def index_select(self, h, batch):
    places = batch["mask"].view(-1).nonzero().squeeze(-1)
    return self.linear(h.view(-1, CLASSES).index_select(0, places)).pow(2).mean()


@selects
def log_sum(self, h, batch):
    return torch.logsumexp(h[batch["mask"].bool()], 0).sum()


@selects
def softmax(self, h, batch):
    return (torch.softmax(h[batch["mask"].bool()], 0) ** 2).sum()


@selects
def running_sum(self, h, batch):
    return torch.cumsum(h[batch["mask"].bool()], 0).pow(2).mean()


@selects
def contrastive(self, h, batch):
    z = F.normalize(h[batch["mask"].bool()], dim=-1)
    return F.cross_entropy(z @ z.T / 0.1, torch.arange(z.size(0)))


@selects
def supervised_contrastive(self, h, batch):
    kept = batch["mask"].bool()
    z, labels = F.normalize(h[kept], dim=-1), batch["labels"][kept]
    same = torch.eye(z.size(0), dtype=torch.bool)
    similarity = (z @ z.T / 0.1).masked_fill(same, -1e9)
    positive = (labels[:, None] == labels[None, :]) & ~same
    log_p = similarity - torch.logsumexp(similarity, 1, keepdim=True)
    return -(log_p * positive).sum(1).div(positive.sum(1).clamp(min=1)).mean()


@selects
def written_back(self, h, batch):
    kept = batch["mask"].bool()
    out = torch.zeros_like(h)
    out[kept] = self.linear(h[kept])
    return out.pow(2).mean()


@selects
def summed_per_row(self, h, batch):
    row, column = batch["mask"].nonzero(as_tuple=True)
    return torch.zeros(4, CLASSES).index_add(0, row, self.linear(h[row, column])).pow(2).mean()


@selects
def mean_of_each_row(self, h, batch):
    means = [h[i][batch["mask"][i].bool()].sum(0) for i in range(4)]
    return self.linear(torch.stack(means)).pow(2).mean()


@selects
def layer_norm(self, h, batch):
    return (self.layer(h[batch["mask"].bool()]) * torch.arange(3.0)).pow(2).mean()


@selects
def deviation(self, h, batch):
    return (h[batch["mask"].bool()].std(0) * torch.arange(3.0)).sum()


@selects
def binary(self, h, batch):
    kept = batch["mask"].bool()
    target = (batch["labels"][kept] > 0).float()
    return F.binary_cross_entropy_with_logits(h[kept][:, 0], target, pos_weight=torch.tensor(2.0))


@selects
def squared_error(self, h, batch):
    kept = h[batch["mask"].bool()]
    return F.mse_loss(kept, torch.ones_like(kept))


@selects
def divided_by_count(self, h, batch):
    kept = h[batch["mask"].bool()]
    return kept.pow(2).sum() / kept.shape[0]


@selects
def nested(self, h, batch):
    labels = batch["labels"][batch["mask"].bool()]
    inner = h[batch["mask"].bool()][labels > 0]
    return self.linear(inner).pow(2).sum() + self.table(labels.clamp(min=0)).mean()


@selects
def joined(self, h, batch):
    kept = h[batch["mask"].bool()]
    rows = torch.cat([kept, h[:, 0], kept * 2])
    return (self.linear(rows) * self.pairs(torch.cat([rows, rows.flip(0)], -1))).pow(2).mean()


@selects
def accuracy(self, h, batch):
    kept = batch["mask"].bool()
    right = (h[kept].argmax(-1) == batch["labels"][kept]).float()
    return h[kept].pow(2).mean() + right.mean()


@selects
def picked_by_place(self, h, batch):
    kept = batch["labels"] != -100
    log_p = F.log_softmax(h, -1)[kept]
    return -log_p[torch.arange(log_p.shape[0]), batch["labels"][kept]].mean()


@selects
def gathered(self, h, batch):
    kept = batch["labels"] != -100
    log_p = F.log_softmax(h, -1)[kept]
    return -log_p.gather(1, batch["labels"][kept].unsqueeze(1)).squeeze(1).mean()


@selects
def focal(self, h, batch):
    kept = batch["labels"] != -100
    loss = F.cross_entropy(h[kept], batch["labels"][kept], reduction="none")
    return ((1 - torch.exp(-loss)) ** 2 * loss).mean()


@selects
def scaled_dot_product(self, h, batch):
    kept = h[batch["mask"].bool()].unsqueeze(0)
    return F.scaled_dot_product_attention(kept, kept, kept).pow(2).sum()


@selects
def multi_head(self, h, batch):
    kept = h[batch["mask"].bool()].unsqueeze(0)
    return self.attend(kept, kept, kept)[0].pow(2).sum()


@selects
def cosine(self, h, batch):
    kept = h[batch["mask"].bool()]
    return (1 - F.cosine_similarity(kept, kept.flip(-1))).mean()


@selects
def one_hot(self, h, batch):
    kept = batch["labels"] != -100
    target = F.one_hot(batch["labels"][kept], CLASSES).float()
    return (target - h[kept].softmax(-1)).pow(2).mean()


@selects
def divergence(self, h, batch):
    kept = h[batch["mask"].bool()]
    target = kept.flip(-1).softmax(-1)
    return F.kl_div(kept.log_softmax(-1), target, reduction="batchmean")


@selects
def all_pairs(self, h, batch):
    both = batch["mask"][:, :, None] * batch["mask"][:, None, :]
    row, i, j = both.nonzero(as_tuple=True)
    return self.pairs(torch.cat([h[row, i], h[row, j]], -1)).pow(2).mean()


@selects
def product(self, h, batch):
    kept = h[batch["mask"].bool()]
    return torch.einsum("nd,md->nm", kept, kept).pow(2).mean()


@selects
def sure_predictions(self, h, batch):
    return h[h.softmax(-1).amax(-1) > 0.6].pow(2).sum() + 0 * self.linear(h).sum()


# Losses with control flow that depends on the count, so that several graphs are needed.


@selects
def squeezed(self, h, batch):
    places = batch["mask"].view(-1).nonzero().squeeze()
    return h.view(-1, CLASSES)[places].pow(2).mean(0).sum()


@selects
def batch_norm(self, h, batch):
    normal = self.normalise(h[batch["mask"].bool()])
    return (self.linear(normal) * torch.tensor([1.0, 2.0, 3.0])).pow(3).mean()


@selects
def only_if_any(self, h, batch):
    kept = batch["mask"].bool()
    return h[kept].pow(2).mean() if kept.any() else h.sum() * 0


@selects
def only_if_some(self, h, batch):
    kept = h[batch["mask"].bool()]
    return kept.pow(2).mean() if kept.numel() > 0 else h.sum() * 0


@selects
def at_least_one(self, h, batch):
    kept = h[batch["mask"].bool()]
    return kept.pow(2).sum() / max(kept.size(0), 1)


@selects
def largest(self, h, batch):
    return h[batch["mask"].bool()].max(0)[0].sum()


@selects
def first_and_last(self, h, batch):
    kept = h[batch["mask"].bool()]
    return kept[0].sum() - kept[-1].pow(2).sum()


@selects
def inverse_frequencies(self, h, batch):
    values, groups, counts = torch.unique(batch["labels"], return_inverse=True, return_counts=True)
    return (h.pow(2).sum(-1) / counts[groups]).sum() + (values * counts).sum() * h.mean()


@selects
def lengths_of_runs(self, h, batch):
    values, lengths = batch["labels"].unique_consecutive(return_counts=True)
    return (lengths * values).float().mean() * h.pow(2).mean()


@selects
def ends_of_rows(self, h, batch):
    ends = list(enumerate(batch["mask"].sum(1).tolist()))
    first = torch.stack([h[row, :end].sum(0) for row, end in ends])
    last = torch.stack([h[row, -end:].pow(2).sum(0) for row, end in ends])
    return (first * last).mean() + torch.cat([h[row, end:9] for row, end in ends]).sum()
