"""Calls of the operators that read and write at indices."""

import torch
from table_calls import calls
from torch_cases import f, ids

aten, prims = torch.ops.aten, torch.ops.prims
torch.manual_seed(0)
MASK = torch.tensor([[True, False, True], [False, False, True]])
BROKEN = torch.tensor([[1.0, float("nan"), 0.5], [2.0, -1.0, 2.0]])
TIED = torch.tensor([[1, 3, 3, 2], [0, 0, 5, 5]])
COMPLEX = torch.complex(f(2, 3), f(2, 3))

calls("indexing", aten.select_scatter.default, (f(5, 4), f(4), 0, -1), (f(5, 4), f(5), 1, 2))
calls("indexing", aten.diagonal_scatter.default, (f(3, 4), f(3)), (f(3, 3, 2), f(2, 2), 1, 0, 1))
calls(
    "indexing",
    aten.index_select.default,
    (f(5, 4), 0, ids(5, 3)),
    (f(5, 4), -1, ids(4, 6)),
    (f(5), 0, torch.tensor(2)),
)
calls(
    "indexing",
    aten.gather.default,
    (f(4, 5), 1, ids(5, 4, 2)),
    (f(4, 5), 0, ids(4, 2, 3)),
    (f(4, 5), -1, ids(5, 3, 7)),
)
for _name in ("index", "_unsafe_index"):
    calls(
        "indexing",
        getattr(aten, _name).Tensor,
        (f(4, 5), [ids(4, 3)]),
        (f(4, 5), [None, ids(5, 2, 3) - 5]),
        (f(4, 5, 3), [ids(4, 3), None, ids(3, 3)]),
        (f(4, 5, 3), [None, ids(5, 2, 1), ids(3, 4)]),
    )
calls(
    "indexing",
    aten.index.Tensor,
    (f(2, 3), [MASK]),
    (f(2, 3, 2), [MASK]),
    (f(4, 2, 3), [None, MASK]),
    (f(2, 3, 4), [MASK[:, 0], None, ids(4, 1)]),
    (f(2, 3, 4), [MASK[:, 0], ids(3, 2)]),  # a single true element is broadcast
)
_BYTES = MASK.byte() * 2  # other numbers than 1 select, too
calls(
    "indexing",
    aten.index.Tensor,
    (torch.eye(2, 3), [_BYTES]),
    (torch.eye(3), [None, _BYTES[0]]),
    (torch.eye(3), [_BYTES[0], torch.tensor([2, 1])]),
)
calls(
    "indexing",
    aten.index_put.default,
    (torch.eye(2, 3), [_BYTES], torch.tensor([2.0, 3.0, 4.0])),
    (torch.eye(2, 3), [_BYTES], torch.tensor(2.0), True),
)
for _name in ("index_put", "_unsafe_index_put"):
    calls(
        "indexing",
        getattr(aten, _name).default,
        (f(4, 5), [ids(4, 3)], f(3, 5), True),
        (f(4, 5), [torch.tensor([2, 0]), torch.tensor([-1, 3])], f()),
    )
calls(
    "indexing",
    aten.index_put.default,
    (f(2, 3), [MASK], f()),
    (f(2, 3), [MASK], f(3)),
    (f(2, 3), [MASK], f(3), True),
    (f(2, 3, 4), [MASK], f(4)),
    (f(2, 3, 4), [MASK], f(3, 4)),
    (f(5, 2, 3), [None, MASK], f(5, 3)),
    (f(5, 2, 3), [None, MASK], f(5, 1)),
    (f(5, 2, 3), [None, None, MASK[0]], f(2)),
)
calls("indexing", aten.scatter.src, (f(4, 5), 1, torch.tensor([[1, 0], [3, 4]]), f(2, 3)))
calls(
    "indexing", aten.scatter.value, (f(4, 5), 0, ids(4, 2, 3), 2.5), (ids(4, 5), -1, ids(1, 3), 7)
)
calls(
    "indexing",
    aten.scatter_add.default,
    (f(4, 5), 1, ids(5, 3, 6), f(4, 7)),
    (f(4, 5), 0, ids(4, 9, 2), f(9, 2)),
)
for _reduce in ("sum", "mean", "prod", "amax", "amin"):
    for _own in (True, False):
        calls(
            "indexing",
            aten.scatter_reduce.two,
            (f(4, 2), 0, ids(3, 5, 2), f(5, 2), _reduce),
            (ids(9, 4), 0, ids(4, 6), ids(9, 6), _reduce),
            include_self=_own,
        )
calls(
    "indexing",
    aten.index_add.default,
    (f(4, 3), 0, ids(4, 5), f(5, 3)),
    (f(4, 3), -1, ids(3, 5), f(4, 5)),
)
calls("indexing", aten.index_add.default, (f(4, 3), 0, ids(4, 5), f(5, 3)), alpha=-2)
calls("indexing", aten.nonzero.default, MASK, ids(2, 5), f(3))
calls("indexing", aten.masked_select.default, (f(2, 3), MASK), (f(3), MASK))
calls("indexing", aten.masked_scatter.default, (f(2, 3), MASK, f(6)), (f(2, 3), MASK[0], f(2, 3)))
calls(
    "indexing",
    aten.masked_scatter_backward.default,
    (f(2, 3), MASK, (4,)),
    (f(2, 3), MASK[0], (2, 3)),
)
calls(
    "indexing",
    aten._functional_assert_async.msg,
    (torch.tensor(True), "lengths fall", torch.tensor([3, 2, 2])),
)
