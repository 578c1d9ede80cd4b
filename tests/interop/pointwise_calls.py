"""Calls of the operators that work element by element, and of those that make tensors."""

import torch
from table_calls import SPECIAL, calls
from torch_cases import f, ids

aten, prims = torch.ops.aten, torch.ops.prims
INTEGERS = torch.tensor([[-7, -2, 0], [3, 5, 2**20]])
TRUTHS = torch.tensor([True, False, True])
POSITIVE = torch.tensor([0.1, 0.5, 1.0, 3.7, 42.0])
COMPLEX = torch.tensor([1 + 2j, -0.5j, 3.0 + 0j, -1 - 1j])
torch.manual_seed(0)

for _name in (
    "abs",
    "ceil",
    "cos",
    "erf",
    "erfc",
    "exp",
    "exp2",
    "expm1",
    "floor",
    "isinf",
    "isnan",
    "logical_not",
    "neg",
    "relu",
    "round",
    "sigmoid",
    "sign",
    "sin",
    "sqrt",
    "tanh",
    "trunc",
    "reciprocal",
    "rsqrt",
    "log",
    "log2",
    "log10",
    "log1p",
    "atan",
    "asinh",
):
    # scalar tensors, halves, integers, and special floats
    calls("unary", getattr(aten, _name).default, f(3, 4), f(), SPECIAL, f(5).bfloat16(), INTEGERS)
for _name in ("cosh", "sinh", "tan"):
    calls("unary", getattr(aten, _name).default, f(3, 4), INTEGERS / 7e5)
for _name in ("acos", "asin", "atanh", "erfinv"):
    calls("unary", getattr(aten, _name).default, f(3, 4).tanh(), SPECIAL)
for _name in ("acosh", "digamma", "lgamma"):
    calls("unary", getattr(aten, _name).default, POSITIVE + 1, tolerance=3e-6)
_SHAPES = POSITIVE[1:] * 2
calls("binary", aten._standard_gamma_grad.default, (_SHAPES, _SHAPES * 0.8), tolerance=1e-3)
calls("unary", aten.bitwise_not.default, INTEGERS, TRUTHS, torch.tensor([3], dtype=torch.uint8))
calls("unary", aten.logical_not.default, TRUTHS)
calls("unary", aten.sign.default, TRUTHS)
calls("unary", aten.round.decimals, f(5), f(5) * 100, decimals=1)
for _name in ("angle", "conj_physical", "imag", "real", "abs", "neg", "exp"):
    calls("complex", getattr(aten, _name).default, COMPLEX)
calls("complex", aten.angle.default, f(4))
calls("complex", aten.complex.default, (f(3), f(3)))
calls("complex", aten.mul.Tensor, (COMPLEX, COMPLEX), (COMPLEX, f(4)))
calls("complex", aten.add.Tensor, (COMPLEX, f(4)))
calls("complex", aten._to_copy.default, f(3), dtype=torch.complex64)

for _name in ("eq", "ne", "lt", "le", "gt", "ge"):
    calls("binary", getattr(aten, _name).Tensor, (f(3, 4), f(4)), (INTEGERS, f(3)), (SPECIAL, f()))
    calls("binary", getattr(aten, _name).Scalar, (INTEGERS, 3), (INTEGERS, 2.5), (SPECIAL, 1))
for _name in ("add", "sub"):
    calls(
        "binary",
        getattr(aten, _name).Tensor,
        (f(3, 4), f(4)),
        (INTEGERS, f(3)),
        (f(2).bfloat16(), f()),
        (INTEGERS, torch.tensor(2.5)),
    )
    calls("binary", getattr(aten, _name).Tensor, (f(3, 4), f(4)), alpha=0.5)
    calls("binary", getattr(aten, _name).Scalar, (f(3), 2), (INTEGERS, 2.5))
calls(
    "binary", aten.mul.Tensor, (f(3, 1), f(4)), (INTEGERS, f(3)), (TRUTHS, TRUTHS), (TRUTHS, f(3))
)
calls("binary", aten.mul.Scalar, (f(3), 2), (INTEGERS, 2.5), (f(3).half(), 3))
calls("binary", aten.atan2.default, (f(3, 4), f(4)), (SPECIAL, f()))
for _name in ("maximum", "minimum"):
    calls(
        "binary",
        getattr(aten, _name).default,
        (f(3, 4), f(4)),
        (SPECIAL, f()),
        (INTEGERS, INTEGERS.T.reshape(2, 3)),
    )
for _name in ("logical_and", "logical_or", "logical_xor"):
    calls(
        "binary",
        getattr(aten, _name).default,
        (TRUTHS, TRUTHS.flip(0)),
        (INTEGERS, TRUTHS),
        (f(3), TRUTHS),
    )
for _name in ("bitwise_and", "bitwise_or", "bitwise_xor"):
    calls("binary", getattr(aten, _name).Tensor, (TRUTHS, TRUTHS.flip(0)), (INTEGERS, INTEGERS + 5))
    calls("binary", getattr(aten, _name).Scalar, (INTEGERS, 6), (TRUTHS, True))
DIVISORS = torch.tensor([[3, -2, 5], [-4, 2, 7]])
for _name in ("remainder", "fmod"):
    calls(
        "binary",
        getattr(aten, _name).Tensor,
        (f(3, 4), f(4)),
        (INTEGERS, DIVISORS),
        (INTEGERS, f(3)),
    )
    calls("binary", getattr(aten, _name).Scalar, (f(3), -0.7), (INTEGERS, 3), (INTEGERS, -3))
calls("binary", aten.div.Tensor, (f(3, 4), f(4)), (INTEGERS, DIVISORS), (SPECIAL, SPECIAL.flip(0)))
calls("binary", aten.div.Scalar, (f(3), 3), (INTEGERS, 4))
for _mode in ("floor", "trunc"):
    calls(
        "binary",
        aten.div.Tensor_mode,
        (f(3, 4) * 5, f(4)),
        (INTEGERS, DIVISORS),
        rounding_mode=_mode,
    )
    calls("binary", aten.div.Tensor_mode, (SPECIAL, torch.zeros(8)), rounding_mode=_mode)
    calls("binary", aten.div.Scalar_mode, (SPECIAL, 0.0), rounding_mode=_mode)
    calls("binary", aten.div.Scalar_mode, (f(3) * 9, 2), (INTEGERS, -2), rounding_mode=_mode)
calls("binary", prims.div.default, (f(3), f(3)), (INTEGERS, DIVISORS))
calls("binary", aten.pow.Tensor_Tensor, (POSITIVE, f(5)), (DIVISORS, DIVISORS.abs()))
calls(
    "binary",
    aten.pow.Tensor_Scalar,
    (f(3), 2),
    (f(3), 3.0),
    (POSITIVE, -1.5),
    (POSITIVE, 0.5),
    (f(3), -2),
    (DIVISORS, 2),
    (DIVISORS, 2.0),
    (f(3).bfloat16(), 2),
    (SPECIAL, 0),
)
calls("binary", aten.pow.Scalar, (2, f(3)), (0.5, DIVISORS), (3, DIVISORS.abs()))

calls(
    "ternary",
    aten.where.self,
    (TRUTHS, f(3), f(2, 1)),
    (TRUTHS, INTEGERS, f(3)),
    (f(2, 3) > 0, f(), f(3)),
)
calls("ternary", aten.lerp.Scalar, (f(3, 4), f(4), 0.3))
calls("ternary", aten.lerp.Tensor, (f(3, 4), f(4), f(3, 1)))
calls("ternary", aten.addcmul.default, (f(3, 4), f(4), f(3, 1)), value=0.5)
calls("ternary", aten.addcdiv.default, (f(3, 4), f(4), f(3, 1)), value=0.5)
calls(
    "ternary",
    aten.clamp.default,
    (f(3, 4), -0.5, 0.5),
    (f(3), None, 0.1),
    (INTEGERS, -2),
    (SPECIAL, -1, 1),
)
calls("ternary", aten.clamp.Tensor, (f(3, 4), f(4), None), (f(3), f(3), f(3)))
calls("ternary", aten.clamp_min.default, (f(3), 0.1), (INTEGERS, 1))
calls("ternary", aten.clamp_max.default, (f(3), 0.1), (INTEGERS, 1))
calls("ternary", aten.hardtanh.default, f(3, 4), (f(3), -0.2, 0.1))
calls(
    "ternary",
    aten.masked_fill.Scalar,
    (f(2, 3), TRUTHS, -1e9),
    (INTEGERS, TRUTHS, -100),
    (f(3), TRUTHS, float("-inf")),
)
calls("ternary", aten.masked_fill.Tensor, (f(2, 3), TRUTHS, torch.tensor(2.5)))
calls("ternary", aten.gelu.default, f(3, 4), f(3).bfloat16())
calls("ternary", aten.gelu.default, f(3, 4), approximate="tanh")
calls("ternary", aten.leaky_relu.default, f(3, 4), (f(3), 0.3))
calls("ternary", aten.elu.default, f(3, 4), (f(5), 1.6, 1.05, 0.7), (SPECIAL, 1.5))
for _name in ("hardshrink_backward", "softshrink_backward"):
    calls("ternary", getattr(aten, _name).default, (f(3, 4), f(3, 4), 0.5))
for _type in (torch.bfloat16, torch.int64, torch.bool, torch.float64, torch.uint8, torch.int8):
    calls("ternary", aten._to_copy.default, f(3, 4).abs() * 3, ids(9, 4), dtype=_type)
    calls("ternary", prims.convert_element_type.default, (f(3, 4).abs() * 3, _type))
calls("ternary", aten._to_copy.default, f(3))
BEYOND = torch.tensor([300.5, -100.0, -129.0, 70000.0])
for _type in (torch.uint8, torch.int8, torch.int16):  # what does not fit wraps
    calls("ternary", aten._to_copy.default, BEYOND, BEYOND.bfloat16(), dtype=_type)
    calls("ternary", prims.convert_element_type.default, (BEYOND, _type))
    calls("creation", aten.copy.default, (torch.zeros(4, dtype=_type), BEYOND))

LIMIT = 2**31 - 1
calls("creation", aten.full.default, ((2, 3), 1.5), ((), 3), ((2,), True), ((2,), -LIMIT))
calls("creation", aten.full.default, ((2,), 7), dtype=torch.float32)
calls("creation", aten.scalar_tensor.default, 2.5, 3, -2)
calls("creation", aten.scalar_tensor.default, 0, dtype=torch.bfloat16)
calls("creation", aten.full_like.default, (f(2, 3), 4), (INTEGERS, 2), (f(2), float("-inf")))
calls("creation", aten.full_like.default, (f(2, 3), 1), dtype=torch.bool)
calls("creation", aten.new_full.default, (f(2), (3, 1), 2.5))
calls("creation", aten.new_full.default, (f(2), (3,), 2), dtype=torch.int64)
calls("creation", aten.fill.Scalar, (f(2, 3), 4), (INTEGERS, 2))
calls("creation", aten.fill.Tensor, (f(2, 3), torch.tensor(1.5)))
calls("creation", aten.copy.default, (f(2, 3), f(3)), (f(2, 3), INTEGERS), (INTEGERS, f(2, 1)))
for _name in ("zeros", "ones"):
    calls("creation", getattr(aten, _name).default, ((2, 3),))
    calls("creation", getattr(aten, _name).default, ((2,),), dtype=torch.int64)
    calls("creation", getattr(aten, f"{_name}_like").default, f(2, 3), INTEGERS)
    calls("creation", getattr(aten, f"new_{_name}").default, (f(2), (3,)))
for _target, _args in {
    aten.empty.memory_format: ((2, 3),),
    aten.empty_permuted.default: ((2, 3), (1, 0)),
    aten.empty_strided.default: ((2, 3), (1, 2)),
    aten.new_empty_strided.default: (f(2), (2, 3), (3, 1)),
    aten.new_empty.default: (INTEGERS, (4,)),
    aten.empty_like.default: (f(3),),
}.items():
    calls("creation", _target, _args, compare=())  # only shape and dtype are defined
calls("creation", aten.arange.start_step, (0, 5), (2, 9, 3), (0, 1, 0.25), (5, 0, -2))
calls("creation", aten.arange.start_step, (0, 5), dtype=torch.float32)
calls(
    "creation",
    prims.iota.default,
    5,
    start=2,
    step=3,
    dtype=torch.int64,
    device=torch.device("cpu"),
    requires_grad=False,
)
calls("creation", aten.linspace.default, (0, 1, 5), (-2.0, 3, 1))
calls("creation", aten.eye.default, 3)
calls("creation", aten.eye.m, (2, 3))
for _window in (aten.bartlett_window, aten.blackman_window, aten.hann_window):
    calls("creation", _window.default, 8, 1)
    calls("creation", _window.periodic, (8, False), (7, True))
calls("creation", aten.hamming_window.default, 8)
calls("creation", aten.hamming_window.periodic, (8, False))
calls("creation", aten.hamming_window.periodic_alpha, (8, True, 0.5))
calls("creation", aten.hamming_window.periodic_alpha_beta, (8, True, 0.5, 0.4))
calls("creation", aten.kaiser_window.default, 8)
calls("creation", aten.kaiser_window.periodic, (8, False))
calls("creation", aten.kaiser_window.beta, (8, True, 9.0))
