"""Calls of the operators that reduce and sort."""

import torch
from table_calls import SPECIAL, calls
from torch_cases import f, ids

aten, prims = torch.ops.aten, torch.ops.prims
torch.manual_seed(0)
MASK = torch.tensor([[True, False, True], [False, False, True]])
BROKEN = torch.tensor([[1.0, float("nan"), 0.5], [2.0, -1.0, 2.0]])
TIED = torch.tensor([[1, 3, 3, 2], [0, 0, 5, 5]])
COMPLEX = torch.complex(f(2, 3), f(2, 3))

calls("reductions", aten.sum.default, f(3, 4), ids(9, 5), MASK, f(3).bfloat16())
calls(
    "reductions",
    aten.sum.dim_IntList,
    (f(3, 4), [0]),
    (f(3, 4), [-1, 0], True),
    (MASK, [1]),
    (f(3, 4), None),
    (ids(9, 3, 2).byte(), [0]),
)
calls("reductions", aten.sum.dim_IntList, (ids(9, 3, 2), [0]), dtype=torch.float32)
calls("reductions", prims.sum.default, (f(3, 4), [1]), (f(3, 4), [0, 1]))
calls("reductions", aten.mean.default, f(3, 4))
calls("reductions", aten.mean.default, ids(9, 5), dtype=torch.float32)
calls("reductions", aten.mean.dim, (f(3, 4), [0]), (f(3, 4), [1], True), (f(3, 4), None))
calls("reductions", aten.var.correction, (f(3, 4), [0]), (f(3, 4),))
calls("reductions", aten.var.correction, (f(3, 4), [0]), correction=0, keepdim=True)
calls("reductions", prims.var.default, (f(3, 4), [0]), (f(3, 4), [0, 1]), correction=1)
calls("reductions", aten.prod.default, f(3, 4), ids(5, 4), MASK)
calls("reductions", aten.prod.dim_int, (f(3, 4), 1), (f(3, 4), 0, True), (ids(5, 3, 2), -1))
for _name in ("any", "all"):
    calls("reductions", getattr(aten, _name).default, MASK, f(3), ids(2, 4))
    calls("reductions", getattr(aten, _name).dim, (MASK, 0), (MASK, 1, True))
    calls("reductions", getattr(aten, _name).dims, (MASK, [0, 1]), (MASK, None))
for _name in ("amax", "amin"):
    calls(
        "reductions",
        getattr(aten, _name).default,
        f(3, 4),
        (f(3, 4), [0]),
        (TIED, [1], True),
        (BROKEN, [1]),
    )
for _name in ("max", "min"):
    calls("reductions", getattr(aten, _name).default, f(3, 4), TIED, BROKEN)
    calls(
        "reductions",
        getattr(aten, _name).dim,
        (f(3, 4), 0),
        (TIED, -1, True),
        (BROKEN, 1),
        (f(), 0),
    )
    calls(
        "reductions",
        getattr(aten, f"arg{_name}").default,
        f(3, 4),
        (f(3, 4), 0),
        (TIED, -1, True),
        (BROKEN, 1),
    )
for _name in ("cumsum", "cumprod"):
    calls("reductions", getattr(aten, _name).default, (f(3, 4), 0), (TIED, -1), (MASK, 1), (f(), 0))
    calls("reductions", getattr(aten, _name).default, (TIED, 0), dtype=torch.float32)
calls("reductions", aten.logcumsumexp.default, (f(3, 4), 1), (f(3, 4) * 50, 0), (f(), 0))
for _name in ("cummax", "cummin"):
    calls(
        "reductions", getattr(aten, _name).default, (f(3, 4), 0), (TIED, -1), (BROKEN, 1), (f(), 0)
    )

for _down in (False, True):
    calls(
        "sorting",
        aten.sort.default,
        (f(3, 4), 0, _down),
        (f(3, 4), -1, _down),
        (f(), 0, _down),
        (BROKEN, 1, _down),
    )
    calls("sorting", aten.sort.stable, f(3, 4), TIED, BROKEN, stable=True, dim=1, descending=_down)
    calls(
        "sorting",
        aten.topk.default,
        (f(5, 4), 2, 0, _down),
        (f(5, 4), 3, -1, _down),
        (f(), 1, 0, _down),
    )
# A NaN with the sign that arithmetic on x86 gives it, too.
calls(
    "sorting", aten.topk.default, (BROKEN, 2), (torch.tensor([[0.5, -float("nan"), 2.0, 1.0]]), 3)
)
calls("sorting", aten.kthvalue.default, (f(5, 4), 2), (f(5, 4), 3, 0, True), (f(), 1))
calls("sorting", aten.median.dim, (f(5, 4), 0), (f(5, 4), 1, True), (BROKEN, 1), (f(), 0))
calls("sorting", aten.median.default, f(5, 4), BROKEN, ids(9, 6))
for _right in (False, True):
    calls(
        "sorting",
        aten.searchsorted.Tensor,
        (torch.arange(4.0), f(2, 3)),
        (f(2, 5).sort().values, f(2, 3)),
        (torch.arange(4), ids(4, 3)),
        right=_right,
    )
    calls(
        "sorting",
        aten.bucketize.Tensor,
        (f(2, 3), torch.arange(-1.0, 2)),
        (SPECIAL[:5], SPECIAL[2:5:2]),
        right=_right,
    )
calls(
    "sorting",
    aten.searchsorted.Tensor,
    (torch.tensor([3.0, 1, 2]), f(4)),
    sorter=torch.tensor([1, 2, 0]),
    side="right",
)
