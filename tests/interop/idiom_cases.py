"""Common tensor operations between layers."""

import torch
from torch.nn import functional as F
from torch_cases import f, idiom, ids

# In-place, views, indices -----------------------------------------------------------------


def in_place(x, y):
    h = x * 2
    h[:, 1:3] = y[:, :2]
    h[0] += 1
    h.view(-1)[::2].mul_(3)
    h.t().add_(x.t())
    h[y > 0] = -1.0
    return h


idiom("in-place through views", in_place, lambda: f(3, 4), lambda: f(3, 4))
idiom(
    "masked_fill and where",
    lambda x, y: torch.where(y > 0, x.masked_fill(x < 0, -9.0), y),
    lambda: f(3, 4),
    lambda: f(3, 4),
)
idiom(
    "index_put accumulating",
    lambda x, i, v: x.clone().index_put((i, i.flip(0)), v, accumulate=True),
    lambda: f(4, 4),
    lambda: ids(4, 6),
    lambda: f(6),
)
idiom(
    "advanced indices",
    lambda x, i: (x[:, i], x[i, :, i], x[..., None, i, 0], x[i[:, None], i]),
    lambda: f(4, 4, 4),
    lambda: ids(4, 3),
)
idiom(
    "negative indices",
    lambda x, i: (x[i], x.index_select(0, i % 4)),
    lambda: f(4, 2),
    lambda: ids(4, 3) - 4,
)
idiom(
    "gather", lambda x, i: (x.gather(1, i), x.gather(0, i)), lambda: f(4, 5), lambda: ids(4, 3, 4)
)
idiom(
    "scatter",
    lambda x, i, s: (x.scatter(1, i, s), x.scatter(1, i, 2.5)),
    lambda: f(3, 4),
    lambda: torch.tensor([[1, 0], [3, 2]]),
    lambda: f(2, 2),
)
idiom(
    "scatter with duplicates",
    lambda x, i, s: x.scatter(0, i, s),
    lambda: f(3, 2),
    lambda: torch.tensor([[1, 0], [1, 2]]),
    lambda: f(2, 2),
)
idiom(
    "scatter_add and index_add",
    lambda x, i, s: (x.scatter_add(0, i, s), x.index_add(0, i[:, 0], s, alpha=0.5)),
    lambda: f(4, 3),
    lambda: ids(4, 5, 3),
    lambda: f(5, 3),
)
idiom(
    "scatter_reduce",
    lambda x, i, s: [
        x.scatter_reduce(0, i, s, reduce, include_self=own)
        for reduce in ("sum", "mean", "prod", "amax", "amin")
        for own in (True, False)
    ],
    lambda: f(4, 2),
    lambda: ids(3, 5, 2),
    lambda: f(5, 2),
)
idiom(
    "index_copy and index_fill",
    lambda x, s: (
        x.index_copy(0, torch.tensor([2, 0]), s),
        x.index_fill(1, torch.tensor([1]), 3.0),
    ),
    lambda: f(4, 3),
    lambda: f(2, 3),
)
idiom("masked_scatter", lambda x, s: x.masked_scatter(x > 0, s), lambda: f(3, 4), lambda: f(12))
idiom(
    "topk and sort",
    lambda x: (*x.topk(2, dim=0), *x.sort(descending=True), x.argsort(1), *x.kthvalue(2)),
    lambda: f(4, 3),
)
idiom(
    "median, max, min, mode",
    lambda x: (*x.median(1), *x.max(0), *x.min(1, keepdim=True), x.max(), x.median(), x.amax(1)),
    lambda: f(4, 3),
)
idiom(
    "cummax, cummin, cumsum, cumprod, logcumsumexp",
    lambda x: (*x.cummax(0), *x.cummin(1), x.cumsum(1), x.cumprod(0), x.logcumsumexp(1)),
    lambda: f(4, 3),
)
idiom(
    "reductions",
    lambda x: (
        x.sum(0),
        x.mean((0, 1)),
        x.std(1),
        x.var(0, unbiased=False),
        x.prod(),
        x.norm(dim=1),
        x.logsumexp(0),
        x.abs().norm(p=1),
        (x > 0).sum(),
        x.argmax(1),
        x.prod(1),
    ),
    lambda: f(4, 3),
)
idiom(
    "einsum",
    lambda a, b: (torch.einsum("bij,bkj->bik", a, b), torch.einsum("bii->b", a)),
    lambda: f(2, 3, 3),
    lambda: f(2, 4, 3),
)
idiom("cdist", lambda a, b: torch.cdist(a, b), lambda: f(3, 2), lambda: f(4, 2))
idiom(
    "cdist of order 1 and 3",
    lambda a, b: (torch.cdist(a, b, p=1), torch.cdist(a, b, p=3)),
    lambda: f(2, 3, 2),
    lambda: f(2, 4, 2),
)
idiom(
    "cdist of order inf, with equal points",
    lambda a: torch.cdist(a, a, p=float("inf")),
    lambda: f(3, 2),
)
idiom(
    "fft",
    lambda x: (
        torch.fft.rfft(x),
        torch.fft.fft2(x),
        torch.fft.irfft(torch.fft.rfft(x), n=5),
        torch.fft.ifft(torch.complex(x, 2 * x)),
        torch.fft.rfft(x, norm="ortho"),
    ),
    lambda: f(2, 5),
)
idiom(
    "stft",
    lambda x: torch.stft(x, 8, 2, window=torch.hann_window(8), return_complex=True).abs(),
    lambda: f(2, 24),
)
idiom(
    "windows",
    lambda x: (
        x * torch.hann_window(8),
        x * torch.hamming_window(8, periodic=False, alpha=0.5, beta=0.4),
        x * torch.blackman_window(8, periodic=False),
        x * torch.bartlett_window(8),
        x * torch.kaiser_window(8, True, 9.0),
    ),
    lambda: f(2, 8),
)
idiom(
    "shapes",
    lambda x: (
        x.unfold(1, 2, 1),
        x.repeat(2, 1),
        x.flip(0),
        x.roll(1, 1),
        x.tril(),
        torch.cat([x, x[:0]], 0),
        *x.chunk(2, 1),
        x.diagonal(1),
        torch.stack([x, x]).movedim(0, -1),
        F.pad(x, (1, -1)),
        x.expand(2, 3, 4),
        x.squeeze(),
        x.repeat_interleave(2, 0),
        x.T.reshape(-1),
    ),
    lambda: f(3, 4),
)
idiom("as_strided of a view", lambda x: x.t().as_strided((2, 2), (1, 3), 1), lambda: f(3, 4))
idiom(
    "creation",
    lambda x: (
        x * torch.arange(4)
        + torch.eye(3, 4)
        + torch.linspace(0, 1, 4)
        + torch.ones(4, dtype=torch.float64).float()
        + torch.full((4,), 2)
        + x.new_zeros(4)
    ),
    lambda: f(3, 4),
)
idiom(
    "types",
    lambda x, i: (
        (x * i),
        (i / 2),
        i // 2,
        -i % 3,
        (x > 0) + i,
        x.to(torch.bfloat16) * x,
        x.long(),
        x.half().float(),
        i.pow(2),
        (i > 1).float().mean(),
    ),
    lambda: f(3, 4),
    lambda: ids(5, 4),
)
idiom(
    "linear algebra",
    lambda a: (
        torch.linalg.inv(a @ a.T + 3 * torch.eye(3)),
        torch.linalg.det(a),
        torch.linalg.cholesky(a @ a.T + torch.eye(3)),
        torch.linalg.norm(a),
        torch.linalg.solve(a @ a.T + torch.eye(3), a),
    ),
    lambda: f(3, 3),
)


class Reversal(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, gradient):
        return -0.5 * gradient


idiom(
    "own backward, no_grad, data",
    lambda x: Reversal.apply(x) * x.data + x.detach().exp(),
    lambda: f(3),
)
idiom(
    "checkpoint",
    lambda x: torch.utils.checkpoint.checkpoint(torch.sin, x, use_reentrant=False),
    lambda: f(3),
)
idiom("item in arithmetic", lambda x: x * x.sum().item(), lambda: f(3))
