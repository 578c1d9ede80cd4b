"""Calls of products, convolutions, pools and interpolations."""

import torch
from table_calls import calls
from torch_cases import f

aten, medjax = torch.ops.aten, torch.ops.medjax
torch.manual_seed(0)

calls("linear", aten.mm.default, (f(3, 4), f(4, 2)))
calls("linear", aten.bmm.default, (f(2, 3, 4), f(2, 4, 2)))
calls("linear", aten.mv.default, (f(3, 4), f(4)))
calls("linear", aten.dot.default, (f(4), f(4)))
calls(
    "linear",
    aten.addmm.default,
    (f(2), f(3, 4), f(4, 2)),
    (f(3, 2).bfloat16(), f(3, 4).bfloat16(), f(4, 2).bfloat16()),
)
calls("linear", aten.addmm.default, (f(3, 2), f(3, 4), f(4, 2)), beta=0.5, alpha=2)
calls("linear", aten.addmm.default, (torch.full((2,), float("nan")), f(3, 4), f(4, 2)), beta=0)
calls("linear", aten.addmv.default, (f(3), f(3, 4), f(4)))
calls("linear", aten.baddbmm.default, (f(2, 3, 2), f(2, 3, 4), f(2, 4, 2)), beta=0.5, alpha=2)
calls(
    "linear", aten._trilinear.default, (f(3, 2), f(5, 2, 4), f(3, 4), [1, 3], [0], [1, 2], [2, 3])
)
SQUARE = f(2, 3, 3) + 4 * torch.eye(3)
calls("linear", aten.linalg_inv_ex.default, SQUARE, SQUARE[0], tolerance=2e-6)
calls("linear", aten.linalg_cholesky_ex.default, SQUARE @ SQUARE.mT, tolerance=2e-6)
calls(
    "linear", aten.linalg_cholesky_ex.default, SQUARE[0] @ SQUARE[0].T, upper=True, tolerance=2e-6
)
calls("linear", aten._linalg_det.default, SQUARE, SQUARE[0].T, tolerance=2e-6)
calls(
    "linear",
    aten._linalg_solve_ex.default,
    (SQUARE, f(2, 3, 2)),
    (SQUARE[0].T, f(3)),
    tolerance=2e-6,
)
calls("linear", aten._linalg_solve_ex.default, (SQUARE, f(2, 2, 3)), left=False, tolerance=2e-6)
# torch reads one triangle.
_FULL = torch.tensor([[4.0, 1.0, 2.0], [1.0, 5.0, 3.0], [2.0, 3.0, 6.0]])
calls("linear", aten.linalg_cholesky_ex.default, _FULL.tril(), tolerance=2e-6)
calls("linear", aten.linalg_cholesky_ex.default, _FULL.triu(), upper=True, tolerance=2e-6)
# Where a factorisation fails, torch says so in a result of its own; the others are not defined.
_FAILING = torch.stack([_FULL, torch.diag(torch.tensor([1.0, -1.0, -2.0])), -_FULL, _FULL - 3])
calls("linear", aten.linalg_cholesky_ex.default, _FAILING, _FAILING[1], compare=(1,))
_SINGULAR = torch.stack([torch.zeros(2, 2), torch.eye(2), torch.tensor([[0.0, 1.0], [0.0, 1.0]])])
calls("linear", aten.linalg_inv_ex.default, _SINGULAR, _SINGULAR.mT, compare=(1,))
calls("linear", aten._linalg_solve_ex.default, (_SINGULAR, _SINGULAR), compare=(3,))
FACTORS = torch.linalg.lu_factor(SQUARE)
for _options in ({}, {"adjoint": True}, {"left": False}, {"left": False, "adjoint": True}):
    calls(
        "linear", aten.linalg_lu_solve.default, (*FACTORS, f(2, 3, 3)), tolerance=2e-6, **_options
    )
for _options in (
    {"upper": True},
    {"upper": False, "unitriangular": True},
    {"upper": False, "left": False},
):
    calls(
        "linear",
        aten.linalg_solve_triangular.default,
        (SQUARE, f(2, 3, 3)),
        (SQUARE[0], f(2, 3, 3)),
        tolerance=2e-6,
        **_options,
    )

CONVOLUTIONS = (
    (f(2, 4, 7), f(6, 2, 3), f(6), [2], [1], [1], False, [0], 2),
    (f(1, 4, 7), f(6, 4, 3), f(6), [1], [0], [2], False, [0], 1),
    (f(1, 2, 5, 4), f(3, 2, 3, 2), None, [1], [1], [1], False, [0], 1),
    (
        f(1, 1, 3, 4, 3),
        f(2, 1, 2, 2, 2),
        f(2),
        [1, 2, 1],
        [0, 1, 0],
        [1, 1, 1],
        False,
        [0, 0, 0],
        1,
    ),
    (f(2, 4, 5), f(4, 3, 3), f(6), [2], [1], [1], True, [1], 2),
    (f(1, 2, 3, 4), f(2, 3, 3, 2), f(3), [2, 1], [0, 1], [1, 2], True, [1, 0], 1),
)
for _x, _weight, _bias, *_options in CONVOLUTIONS:
    calls("convolution", aten.convolution.default, (_x, _weight, _bias, *_options))
    _output = aten.convolution(_x, _weight, _bias, *_options)
    _sizes = [] if _bias is None else list(_bias.shape)
    for _wanted in ([True, True, True], [False, True, False]):
        calls(
            "convolution",
            aten.convolution_backward.default,
            (f(*_output.shape), _x, _weight, _sizes, *_options, _wanted),
            tolerance=2e-6,
        )

MASKED = torch.full((1, 5, 6), float("-inf"))
POOLS = {2: (f(2, 3, 5, 6), f(3, 5, 6), MASKED), 3: (f(1, 2, 4, 5, 4),)}
for _rank, _inputs in POOLS.items():
    for _x in _inputs:
        for _options in (
            ([2] * _rank,),
            ([3] * _rank, [2] * _rank, [1] * _rank, [1] * _rank, True),
            ([2], [1], [0], [2]),
        ):
            _target = getattr(aten, f"max_pool{_rank}d_with_indices").default
            calls("pooling", _target, (_x, *_options))
            _output, _index = _target(_x, *_options)
            _kernel, _stride, _padding, _dilation, _ceil = (
                *_options,
                *([2], [0], [1], False)[len(_options) - 1 :],
            )
            calls(
                "pooling",
                getattr(aten, f"max_pool{_rank}d_with_indices_backward").default,
                (f(*_output.shape), _x, _kernel, _stride, _padding, _dilation, _ceil, _index),
            )
        for _options in (
            ([2] * _rank, [], [0], False, True, None),
            ([3] * _rank, [2] * _rank, [1] * _rank, True, True, None),
            ([3] * _rank, [2] * _rank, [1] * _rank, True, False, None),
            ([2] * _rank, [1] * _rank, [0] * _rank, False, True, 3),
        ):
            _target = getattr(aten, f"avg_pool{_rank}d").default
            calls("pooling", _target, (_x, *_options))
            _shape = _target(_x, *_options).shape
            calls(
                "pooling",
                getattr(aten, f"avg_pool{_rank}d_backward").default,
                (f(*_shape), _x, *_options),
            )
        _size = (1, 2, 3)[-_rank:]
        _target = getattr(aten, f"adaptive_max_pool{_rank}d").default
        calls("pooling", _target, (_x, _size))
        _output, _index = _target(_x, _size)
        calls(
            "pooling",
            getattr(aten, f"adaptive_max_pool{_rank}d_backward").default,
            (f(*_output.shape), _x, _index),
        )
        calls("pooling", getattr(aten, f"_adaptive_avg_pool{_rank}d").default, (_x, _size))
        calls(
            "pooling",
            getattr(aten, f"_adaptive_avg_pool{_rank}d_backward").default,
            (f(*_output.shape), _x),
        )

RESIZED = {"1d": (1, 2, 5), "2d": (1, 2, 3, 5), "3d": (1, 1, 3, 2, 4)}
for _name in (
    "upsample_nearest1d",
    "upsample_nearest2d",
    "upsample_nearest3d",
    "_upsample_nearest_exact1d",
    "_upsample_nearest_exact2d",
    "_upsample_nearest_exact3d",
    "upsample_linear1d",
    "upsample_bilinear2d",
    "upsample_trilinear3d",
    "upsample_bicubic2d",
):
    _shape = RESIZED[_name[-2:]]
    _rank = len(_shape) - 2
    for _size, _scales in (
        ((7, 2, 6)[-_rank:], ()),
        (tuple(2 * n for n in _shape[2:]), (2.0,) * _rank),
    ):
        for _align in ((False,), (True,)) if "linear" in _name or "cubic" in _name else ((),):
            calls(
                "resizing",
                getattr(aten, _name).default,
                (f(*_shape), _size, *_align, *_scales),
                tolerance=2e-6,
            )
            calls(
                "resizing",
                getattr(aten, f"{_name}_backward").default,
                (f(*_shape[:2], *_size), _size, _shape, *_align, *_scales),
                tolerance=2e-6,
            )
