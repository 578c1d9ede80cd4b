"""Calls of the operators that rearrange a tensor."""

import torch
from table_calls import calls
from torch_cases import f, ids

aten, prims = torch.ops.aten, torch.ops.prims
torch.manual_seed(0)
MASK = torch.tensor([[True, False, True], [False, False, True]])
BROKEN = torch.tensor([[1.0, float("nan"), 0.5], [2.0, -1.0, 2.0]])
TIED = torch.tensor([[1, 3, 3, 2], [0, 0, 5, 5]])
COMPLEX = torch.complex(f(2, 3), f(2, 3))

for _name in (
    "alias",
    "alias_copy",
    "clone",
    "detach",
    "detach_copy",
    "lift_fresh",
    "lift_fresh_copy",
):
    calls("views", getattr(aten, _name).default, f(2, 3))
calls("views", aten.clone.default, f(2, 3), memory_format=torch.contiguous_format)
for _name in ("view", "view_copy", "_unsafe_view"):
    calls("views", getattr(aten, _name).default, (f(2, 6), (3, 4)), (f(2, 6), (-1,)), (f(1), ()))
calls("views", aten._reshape_copy.default, (f(2, 6), (3, 4)))
for _name in ("view", "view_copy"):
    calls(
        "views",
        getattr(aten, _name).dtype,
        (f(4), torch.int32),
        (f(2, 4), torch.int16),
        (ids(99, 4).short(), torch.int32),
    )
for _suffix in ("", "_copy"):
    calls(
        "views",
        getattr(aten, f"permute{_suffix}").default,
        (f(2, 3, 4), (2, 0, 1)),
        (f(2, 3), (-1, 0)),
    )
    calls("views", getattr(aten, f"transpose{_suffix}").int, (f(2, 3, 4), 0, -1), (f(), 0, 0))
    calls("views", getattr(aten, f"t{_suffix}").default, f(2, 3), f(3))
    calls(
        "views",
        getattr(aten, f"expand{_suffix}").default,
        (f(3, 1), (2, -1, 4)),
        (f(), (2,)),
        (f(3), (3,)),
    )
    calls("views", getattr(aten, f"squeeze{_suffix}").default, f(1, 2, 1))
    calls("views", getattr(aten, f"squeeze{_suffix}").dim, (f(1, 2, 1), -1), (f(1, 2, 1), 1))
    calls("views", getattr(aten, f"squeeze{_suffix}").dims, (f(1, 2, 1), (0, 1)))
    calls(
        "views", getattr(aten, f"unsqueeze{_suffix}").default, (f(2, 3), 1), (f(2, 3), -1), (f(), 0)
    )
    calls(
        "views",
        getattr(aten, f"slice{_suffix}").Tensor,
        (f(5, 4), 0, 1, 2**63 - 1, 2),
        (f(5, 4), 1, -3, -1),
        (f(5),),
    )
    calls("views", getattr(aten, f"select{_suffix}").int, (f(5, 4), 1, -1), (f(5, 4), 0, 2))
    calls(
        "views",
        getattr(aten, f"diagonal{_suffix}").default,
        f(3, 4),
        (f(3, 4, 2), 1, 2, 0),
        (f(3, 4), -1),
    )
    calls("views", getattr(aten, f"unbind{_suffix}").int, f(3, 2), (f(3, 2), -1))
    calls("views", getattr(aten, f"split{_suffix}").Tensor, (f(5, 2), 2), (f(2, 5), 3, -1))
    calls(
        "views",
        getattr(aten, f"split_with_sizes{_suffix}").default,
        (f(5, 2), (2, 0, 3)),
        (f(2, 3), (1, 2), -1),
    )
    calls("views", getattr(aten, f"view_as_real{_suffix}").default, COMPLEX)
    calls("views", getattr(aten, f"view_as_complex{_suffix}").default, f(3, 2))
    calls(
        "views",
        getattr(aten, f"as_strided{_suffix}").default,
        (f(3, 4), (2, 2), (1, 4), 1),
        (f(3, 4).t(), (2, 3), (5, 1)),
        (f(12), (4, 3), (2, 1), 2),
    )
calls(
    "views",
    aten.as_strided_scatter.default,
    (f(3, 4), f(2, 2), (2, 2), (1, 4), 1),
    (f(12), f(3), (3,), (4,)),
)
calls("views", prims.broadcast_in_dim.default, (f(3), (2, 3), (1,)), (f(3, 1), (3, 2, 4), (0, 2)))
calls("views", aten.flip.default, (f(2, 3), (0, -1)))
calls("views", aten.repeat.default, (f(2, 3), (2, 1, 2)))
calls("views", aten.stack.default, ([f(2), f(2)], -1), ([f(2, 3), ids(5, 2, 3)],))
calls(
    "views",
    aten.cat.default,
    ([f(2, 3), f(1, 3)],),
    ([f(2, 3), ids(9, 2, 1)], -1),
    ([f(0), f(2, 3)], 1),
)
calls("views", aten.roll.default, (f(2, 3), (1, -1), (0, 1)), (f(2, 3), (2,)))
for _name in ("tril", "triu"):
    calls("views", getattr(aten, _name).default, f(3, 4), (f(2, 3, 3), -1), (ids(9, 4, 3), 1))
calls(
    "views",
    aten.constant_pad_nd.default,
    (f(2, 3), (1, 2)),
    (f(2, 3), (-1, 1, 0, 2), 4.5),
    (ids(9, 3), (1, 1), -100),
)
calls("views", aten.replication_pad1d_backward.default, (f(2, 6), f(2, 3), (1, 2)))
calls("views", aten.replication_pad2d_backward.default, (f(1, 4, 4), f(1, 3, 3), (1, 0, 0, 1)))
calls(
    "views",
    aten.replication_pad3d_backward.default,
    (f(1, 3, 4, 5), f(1, 2, 3, 3), (1, 1, 0, 1, 1, 0)),
)

calls(
    "indexing",
    aten.slice_scatter.default,
    (f(5, 4), f(2, 4), 0, 1, 5, 2),
    (f(3, 4), f(3, 2), 1, -2),
)
