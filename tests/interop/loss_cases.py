"""Losses and distances of torch.nn."""

import torch
from torch import nn
from torch.nn import functional as F
from torch_cases import Each, case, f, idiom, ids

# Losses -----------------------------------------------------------------------------------


def cross_entropy(**options):
    return lambda x, y: F.cross_entropy(x, y, **options)


def labels():
    return torch.tensor([1, 0, -100, 2])


idiom(
    "cross entropy, none and mean",
    lambda x, y: [F.cross_entropy(x, y, reduction="none"), F.cross_entropy(x, y)],
    lambda: f(4, 3),
    labels,
)
idiom(
    "cross entropy, weights and smoothing",
    cross_entropy(weight=torch.tensor([0.5, 1.0, 2.0]), label_smoothing=0.1),
    lambda: f(4, 3),
    labels,
)
idiom(
    "cross entropy, sum",
    cross_entropy(reduction="sum", ignore_index=2),
    lambda: f(4, 3),
    lambda: torch.tensor([1, 0, 2, 2]),
)
idiom(
    "cross entropy of probabilities",
    lambda x, y: F.cross_entropy(x, y.softmax(-1)),
    lambda: f(4, 3),
    lambda: f(4, 3),
)
idiom(
    "cross entropy of images",
    cross_entropy(weight=torch.tensor([0.5, 1.0, 2.0])),
    lambda: f(2, 3, 2, 2),
    lambda: ids(3, 2, 2, 2),
)
idiom("cross entropy of sequences", cross_entropy(), lambda: f(2, 3, 4), lambda: ids(3, 2, 4))
idiom(
    "binary cross entropy",
    lambda x, y: F.binary_cross_entropy(x.sigmoid(), y.sigmoid()),
    lambda: f(4, 3),
    lambda: f(4, 3),
)
idiom(
    "binary cross entropy with logits",
    lambda x, y: F.binary_cross_entropy_with_logits(x, y.sigmoid(), pos_weight=torch.arange(3.0)),
    lambda: f(4, 3),
    lambda: f(4, 3),
)
case(
    "MSE, L1, smooth L1 and Huber losses",
    lambda: Each(nn.MSELoss(), nn.L1Loss(), nn.SmoothL1Loss(), nn.HuberLoss()),
    lambda: f(4, 3),
    lambda: f(4, 3),
)
idiom(
    "soft margin",
    lambda x, y: F.soft_margin_loss(x, y * 2.0 - 1),
    lambda: f(4, 3),
    lambda: ids(2, 4, 3),
)
idiom(
    "KL divergence",
    lambda x, y: F.kl_div(x.log_softmax(-1), y.softmax(-1), reduction="batchmean"),
    lambda: f(4, 3),
    lambda: f(4, 3),
)
idiom(
    "KL divergence of logs",
    lambda x, y: F.kl_div(x.log_softmax(-1), y.log_softmax(-1), reduction="sum", log_target=True),
    lambda: f(4, 3),
    lambda: f(4, 3),
)


def signs():
    return torch.tensor([1.0, -1.0, 1.0, -1.0])


case("MarginRankingLoss", lambda: nn.MarginRankingLoss(0.5), lambda: f(4), lambda: f(4), signs)
case("TripletMarginLoss", nn.TripletMarginLoss, *(lambda: f(4, 3),) * 3)
case("CosineEmbeddingLoss", nn.CosineEmbeddingLoss, lambda: f(4, 3), lambda: f(4, 3), signs)
case("HingeEmbeddingLoss", nn.HingeEmbeddingLoss, lambda: f(4), signs)
idiom("cosine similarity", lambda a, b: F.cosine_similarity(a, b), lambda: f(4, 3), lambda: f(4, 3))
idiom("pairwise distance", lambda a, b: F.pairwise_distance(a, b), lambda: f(4, 3), lambda: f(4, 3))
case(
    "MultiMarginLoss",
    lambda: nn.MultiMarginLoss(p=2, margin=0.7),
    lambda: f(4, 3),
    lambda: ids(3, 4),
)
case(
    "MultiMarginLoss weighted",
    lambda: nn.MultiMarginLoss(weight=torch.tensor([0.5, 1.0, 2.0])),
    lambda: f(4, 3),
    lambda: ids(3, 4),
)
case(
    "MultiLabelMarginLoss",
    nn.MultiLabelMarginLoss,
    lambda: f(2, 4),
    lambda: torch.tensor([[3, 0, -1, 1], [2, -1, 0, 0]]),
)
case(
    "MultiLabelSoftMarginLoss",
    nn.MultiLabelSoftMarginLoss,
    lambda: f(2, 4),
    lambda: ids(2, 2, 4).float(),
)
case("PoissonNLLLoss", nn.PoissonNLLLoss, lambda: f(4, 3), lambda: ids(5, 4, 3).float())


class GaussianLoss(nn.Module):
    def forward(self, mean, target, spread):
        # F.gaussian_nll_loss reads the variance in Python, which only the tracer handles.
        variance = spread.exp().clone()
        with torch.no_grad():
            variance.clamp_(min=1e-6)
        return 0.5 * (torch.log(variance) + (mean - target) ** 2 / variance).mean()


case("GaussianNLL", GaussianLoss, *(lambda: f(4, 3),) * 3)


def ctc(**options):
    def loss(x, targets, inputs, lengths):
        return F.ctc_loss(x.log_softmax(-1), targets, inputs, lengths, **options)

    return loss


def lengths(*values):
    return lambda: torch.tensor(values)


idiom(
    "CTC", ctc(), lambda: f(6, 3, 4), lambda: ids(3, 3, 3) + 1, lengths(6, 5, 6), lengths(3, 0, 2)
)
idiom(
    "CTC concatenated, sum",
    ctc(reduction="sum", blank=3),
    lambda: f(6, 2, 4),
    lambda: ids(3, 5),
    lengths(6, 5),
    lengths(3, 2),
)
idiom(
    "CTC that does not fit",
    ctc(zero_infinity=True, reduction="none"),
    lambda: f(4, 2, 3),
    lambda: torch.tensor([[1, 1, 1], [1, 2, 1]]),
    lengths(4, 4),
    lengths(3, 2),
)
for _targets in (
    torch.tensor([1, 2, 1, 2, 1, 2, 2]),
    torch.tensor([[1, 2, 1, 2, 1], [2, 2, 0, 0, 0]]),
):
    idiom(
        f"CTC with more labels than frames, {_targets.ndim} axes",
        ctc(zero_infinity=True, reduction="none"),
        lambda: f(4, 2, 3),
        lambda targets=_targets: targets,
        lengths(4, 4),
        lengths(5, 2),
    )
