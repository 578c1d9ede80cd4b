"""Layers, from activations to embeddings."""

import torch
from torch import nn
from torch.nn import functional as F
from torch_cases import Each, case, f, idiom, ids, layer

# Activations ------------------------------------------------------------------------------
ACTIVATIONS = (
    "ReLU",
    "ReLU6",
    "LeakyReLU",
    "ELU",
    "SELU",
    "CELU",
    "GELU",
    "SiLU",
    "Mish",
    "Softplus",
    "Softsign",
    "Softshrink",
    "Hardshrink",
    "Hardtanh",
    "Hardswish",
    "Hardsigmoid",
    "GLU",
    "LogSigmoid",
    "Sigmoid",
    "Tanh",
    "Tanhshrink",
    "PReLU",
)
layer("activations", lambda: Each(*(getattr(nn, name)() for name in ACTIVATIONS)), 3, 4)
layer(
    "activations with options",
    lambda: Each(nn.GELU(approximate="tanh"), nn.Threshold(0.1, 2.0), nn.LeakyReLU(0.3)),
    3,
    4,
)
layer("Softmax and LogSoftmax", lambda: nn.Sequential(nn.Softmax(1), nn.LogSoftmax(0)), 3, 4)
layer("MLP", lambda: nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 2)), 3, 4)
idiom(
    "bilinear layer",
    lambda a, b, w: F.bilinear(a, b, w),
    lambda: f(3, 2),
    lambda: f(3, 4),
    lambda: f(5, 2, 4),
)

# Convolutions and pools -------------------------------------------------------------------
layer("Conv1d", lambda: nn.Conv1d(2, 4, 3, stride=2, padding=1, groups=2), 2, 2, 7)
layer("Conv1d unbatched", lambda: nn.Conv1d(2, 4, 3), 2, 7)
layer("Conv2d", lambda: nn.Conv2d(2, 3, (3, 2), dilation=(1, 2), padding="same"), 2, 2, 5, 6)
layer("Conv3d", lambda: nn.Conv3d(1, 2, 2, bias=False), 1, 1, 3, 4, 3)
layer(
    "ConvTranspose1d", lambda: nn.ConvTranspose1d(4, 2, 3, stride=2, padding=1, groups=2), 2, 4, 5
)
layer(
    "ConvTranspose2d",
    lambda: nn.ConvTranspose2d(2, 3, 3, stride=2, output_padding=1, dilation=2),
    1,
    2,
    3,
    4,
)
layer("circular Conv2d", lambda: nn.Conv2d(1, 2, 3, padding=1, padding_mode="circular"), 1, 1, 4, 4)
layer(
    "reflect and replicate padding",
    lambda: nn.Sequential(nn.ReflectionPad2d(1), nn.ReplicationPad2d((1, 0, 0, 2))),
    1,
    2,
    3,
    4,
)
layer("ReflectionPad1d", lambda: nn.ReflectionPad1d(2), 2, 3, 5)
layer("MaxPool1d", lambda: nn.MaxPool1d(3, stride=2, padding=1), 2, 2, 8)
layer("MaxPool2d", lambda: nn.MaxPool2d(2, ceil_mode=True), 1, 2, 5, 7)
layer(
    "MaxPool2d dilated", lambda: nn.MaxPool2d(2, stride=1, dilation=2, return_indices=True), 2, 5, 6
)
layer("MaxPool3d", lambda: nn.MaxPool3d(2), 1, 2, 4, 4, 5)
layer("AvgPool1d", lambda: nn.AvgPool1d(3, padding=1, count_include_pad=False), 2, 2, 8)
layer("AvgPool2d", lambda: nn.AvgPool2d(3, stride=2, padding=1, ceil_mode=True), 1, 2, 6, 6)
layer("AvgPool3d", lambda: nn.AvgPool3d(2, divisor_override=3), 1, 1, 4, 4, 5)
layer("AdaptiveAvgPool1d", lambda: nn.AdaptiveAvgPool1d(3), 2, 2, 7)
layer("AdaptiveAvgPool2d", lambda: nn.AdaptiveAvgPool2d((2, 3)), 1, 2, 5, 7)
layer("AdaptiveAvgPool3d", lambda: nn.AdaptiveAvgPool3d((1, 2, 3)), 1, 1, 2, 5, 7)
layer("AdaptiveMaxPool1d", lambda: nn.AdaptiveMaxPool1d(3), 2, 2, 7)
layer("AdaptiveMaxPool2d", lambda: nn.AdaptiveMaxPool2d((2, 3)), 1, 2, 5, 7)
layer("AdaptiveMaxPool3d", lambda: nn.AdaptiveMaxPool3d((1, 2, 2)), 1, 1, 2, 4, 5)
layer("LPPool1d", lambda: nn.LPPool1d(2, 3), 2, 2, 8)
layer("PixelShuffle", lambda: nn.PixelShuffle(2), 1, 8, 2, 3)
layer("Unfold and Fold", lambda: nn.Sequential(nn.Unfold(2), nn.Fold((3, 4), 2)), 1, 2, 3, 4)


def resizing(*modes):
    return lambda: Each(*(nn.Upsample(mode=mode, **options) for mode, options in modes))


DOUBLED, LOOSE, ALIGNED = {"scale_factor": 2}, {"align_corners": False}, {"align_corners": True}
layer(
    "Upsample 1d",
    resizing(
        ("nearest", DOUBLED),
        ("nearest", {"scale_factor": 0.7}),
        ("linear", DOUBLED | LOOSE),
        ("linear", {"size": 8} | ALIGNED),
        ("linear", {"size": 3} | LOOSE),
    ),
    1,
    2,
    5,
)
layer(
    "Upsample 2d",
    resizing(
        ("nearest", {"size": (5, 3)}),
        ("nearest-exact", DOUBLED),
        ("bilinear", DOUBLED | LOOSE),
        ("bilinear", {"size": (2, 3)} | ALIGNED),
        ("bicubic", DOUBLED | LOOSE),
    ),
    1,
    2,
    3,
    4,
)
layer("Upsample 3d", resizing(("nearest", DOUBLED), ("trilinear", DOUBLED | LOOSE)), 1, 1, 2, 3, 2)

# Normalisations ---------------------------------------------------------------------------
layer("BatchNorm1d train", lambda: nn.BatchNorm1d(3), 4, 3)
layer("BatchNorm2d train", lambda: nn.BatchNorm2d(3), 2, 3, 4, 2)
layer("BatchNorm1d eval", lambda: nn.BatchNorm1d(3).eval(), 4, 3)
layer("LayerNorm", lambda: nn.LayerNorm((2, 4)), 3, 2, 4)
layer("GroupNorm", lambda: nn.GroupNorm(2, 4), 2, 4, 3)
layer("InstanceNorm1d", lambda: nn.InstanceNorm1d(3, affine=True), 2, 3, 5)
layer("InstanceNorm2d tracking", lambda: nn.InstanceNorm2d(2, track_running_stats=True), 2, 2, 3, 4)
layer("RMSNorm", lambda: nn.RMSNorm(4), 3, 4)
layer("LocalResponseNorm", lambda: nn.LocalResponseNorm(2), 2, 3, 4, 4)
layer("weight norm", lambda: nn.utils.parametrizations.weight_norm(nn.Linear(4, 3)), 2, 4)
layer("old weight norm", lambda: nn.utils.weight_norm(nn.Conv1d(2, 3, 2)), 1, 2, 4)
layer("spectral norm", lambda: nn.utils.parametrizations.spectral_norm(nn.Linear(4, 3)), 2, 4)
idiom("F.normalize", lambda x: F.normalize(x, dim=-1), lambda: f(3, 4))

# Embeddings -------------------------------------------------------------------------------
case("Embedding", lambda: nn.Embedding(7, 3, padding_idx=1), lambda: ids(7, 2, 5))
case("Embedding max_norm", lambda: nn.Embedding(7, 3, max_norm=1.0), lambda: ids(7, 2, 5))
case(
    "Embedding scaled by frequency",
    lambda: nn.Embedding(4, 3, scale_grad_by_freq=True),
    lambda: ids(4, 2, 5),
)
for _mode in ("sum", "mean", "max"):
    case(
        f"EmbeddingBag {_mode}",
        lambda m=_mode: nn.EmbeddingBag(7, 3, mode=m),
        lambda: ids(7, 8),
        lambda: torch.tensor([0, 3, 3, 6]),
    )
    case(
        f"EmbeddingBag {_mode} 2d, padding",
        lambda m=_mode: nn.EmbeddingBag(4, 3, mode=m, padding_idx=2),
        lambda: ids(4, 3, 5),
    )


class WeightedBag(nn.Module):
    def __init__(self):
        super().__init__()
        self.bag = nn.EmbeddingBag(5, 2, mode="sum", include_last_offset=True)

    def forward(self, tokens, offsets, weights):
        return self.bag(tokens, offsets, per_sample_weights=weights)


case(
    "EmbeddingBag weighted",
    WeightedBag,
    lambda: ids(5, 6),
    lambda: torch.tensor([0, 2, 6]),
    lambda: f(6),
)
