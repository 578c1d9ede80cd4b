"""Calls of the operators of normalisations, embeddings, losses and Fourier transforms."""

import torch
from table_calls import calls
from torch_cases import f, ids

import medjax_torch.lowerings  # noqa: F401

aten, medjax = torch.ops.aten, torch.ops.medjax
torch.manual_seed(0)

for _name in ("_softmax", "_log_softmax"):
    calls(
        "normalisation",
        getattr(aten, _name).default,
        (f(3, 4), 1, False),
        (f(3, 4) * 50, 0, False),
        (f(), 0, False),
    )
    _output = getattr(aten, _name).default(f(3, 4), 1, False)
    calls(
        "normalisation",
        getattr(aten, f"{_name}_backward_data").default,
        (f(3, 4), _output, 1, torch.float32),
    )
for _v, _g, _dim in ((f(3, 4), f(3, 1), 0), (f(2, 3, 4), f(1, 1, 4), 2)):
    calls("normalisation", aten._weight_norm_interface.default, (_v, _g, _dim))
    _norm = aten._weight_norm_interface(_v, _g, _dim)[1]
    calls(
        "normalisation",
        aten._weight_norm_interface_backward.default,
        (f(*_v.shape), _v, _g, _norm, _dim),
    )

calls("embedding", aten.embedding.default, (f(7, 3), ids(7, 2, 4)), (f(7, 3), torch.tensor(2)))
calls(
    "embedding",
    aten.embedding_renorm.default,
    (f(7, 3) * 2, ids(7, 2, 3), 1.0, 2.0),
    (f(7, 3) * 2, ids(7, 4), 0.7, 1.0),
)
OFFSETS = torch.tensor([0, 3, 3, 6])
for _mode in (0, 1, 2):
    _weight, _index = f(5, 2), ids(5, 8)
    _extra = [None] if _mode else [None, f(8)]
    for _sample in _extra:
        for _padding in (-1, 2):
            for _name in ("_embedding_bag", "_embedding_bag_forward_only"):
                calls(
                    "embedding",
                    getattr(aten, _name).default,
                    (_weight, _index, OFFSETS, False, _mode, False, _sample, False, _padding),
                    compare=(0,),
                )
            _, _bag, _sizes, _rows = aten._embedding_bag(
                _weight, _index, OFFSETS, False, _mode, False, _sample, False, _padding
            )
            # torch's kernel leaves the bags empty where it does not need them.
            _bag = torch.bucketize(torch.arange(8), OFFSETS, right=True) - 1
            calls(
                "embedding",
                aten._embedding_bag_backward.default,
                (
                    f(4, 2),
                    _index,
                    OFFSETS,
                    _bag,
                    _sizes,
                    _rows,
                    5,
                    False,
                    _mode,
                    False,
                    _sample,
                    _padding,
                ),
            )
            calls(
                "embedding",
                aten._embedding_bag_dense_backward.default,
                (f(4, 2), _index, _bag, _sizes, _rows, 5, False, _mode, _sample, _padding),
            )
            if _mode == 0:
                calls(
                    "embedding",
                    aten._embedding_bag_per_sample_weights_backward.default,
                    (f(4, 2), _weight, _index, OFFSETS, _bag, _mode, _padding),
                )
calls(
    "embedding",
    aten._embedding_bag.default,
    (f(5, 2), ids(5, 6), torch.tensor([0, 2, 6]), False, 0, False, None, True),
    compare=(0,),
)
# Ids after the last offset are in no bag.
calls(
    "embedding",
    aten._embedding_bag.default,
    (f(5, 2), ids(5, 6), torch.tensor([0, 2, 4]), False, 0, False, None, True),
    compare=(0,),
)

for _p in (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, float("inf")):
    _x, _y = f(2, 3, 4), f(2, 5, 4)
    _y[0, 0] = _x[0, 1]
    _distance = aten._cdist_forward(_x, _y, _p, None)
    calls("losses", aten._cdist_forward.default, (_x, _y, _p, None), tolerance=2e-6)
    calls(
        "losses", aten._cdist_backward.default, (f(2, 3, 5), _x, _y, _p, _distance), tolerance=1e-5
    )
for _reduction, _gradient in ((0, f(4)), (1, f()), (2, f())):
    for _weight in (None, f(3).exp()):
        calls(
            "losses",
            aten.multi_margin_loss_backward.default,
            (_gradient, f(4, 3), ids(3, 4), 1, 0.7, _weight, _reduction),
            (_gradient, f(4, 3), ids(3, 4), 2, 1.0, _weight, _reduction),
        )
    _x = f(4, 5)
    _labels = torch.tensor([[3, 0, -1, 1, 2], [-1, 0, 0, 0, 0], [4, 3, 2, 1, 0], [2, -1, -1, 2, 3]])
    calls("losses", aten.multilabel_margin_loss_forward.default, (_x, _labels, _reduction))
    _is_target = aten.multilabel_margin_loss_forward(_x, _labels, _reduction)[1]
    calls(
        "losses",
        aten.multilabel_margin_loss_backward.default,
        (_gradient, _x, _labels, _reduction, _is_target),
    )
LOGITS = f(7, 3, 4).log_softmax(-1)
LENGTHS = (torch.tensor([7, 5, 3]), torch.tensor([3, 0, 3]))
for _targets in (torch.tensor([[1, 1, 2], [1, 2, 3], [2, 2, 3]]), torch.tensor([1, 1, 2, 2, 2, 3])):
    for _zero in (False, True):
        calls(
            "losses", medjax.ctc_nll.default, (LOGITS, _targets, *LENGTHS, 0, _zero), tolerance=2e-6
        )
    calls(
        "losses",
        medjax.ctc_nll_backward.default,
        (f(3), LOGITS, _targets, *LENGTHS, 0, True),
        tolerance=2e-6,
    )
NO_FRAMES = (torch.tensor([0, 0, 3]), torch.tensor([1, 0, 2]))
_targets = torch.tensor([[1, 1], [1, 2], [2, 3]])
for _zero in (False, True):
    calls(
        "losses", medjax.ctc_nll.default, (LOGITS, _targets, *NO_FRAMES, 0, _zero), tolerance=2e-6
    )
    calls(
        "losses",
        medjax.ctc_nll_backward.default,
        (torch.tensor([0.5, 2.0, -1.0]), LOGITS, _targets, *NO_FRAMES, 0, _zero),
        tolerance=2e-6,
    )

for _norm in (0, 1, 2):
    _spectrum = torch.fft.rfftn(f(2, 3, 6), dim=(1, 2))
    calls(
        "fourier",
        aten._fft_r2c.default,
        (f(2, 3, 5), [1, 2], _norm, True),
        (f(2, 6), [1], _norm, False),
        tolerance=2e-6,
    )
    calls(
        "fourier",
        aten._fft_c2c.default,
        (_spectrum, [0, 2], _norm, True),
        (_spectrum, [1], _norm, False),
        tolerance=2e-6,
    )
    calls(
        "fourier",
        aten._fft_c2r.default,
        (_spectrum, [1, 2], _norm, 6),
        (_spectrum, [2], _norm, 7),
        tolerance=2e-6,
    )
