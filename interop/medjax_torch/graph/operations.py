"""Names of operations, and the operations that pass elements on unchanged."""

from __future__ import annotations

from torch import fx

from medjax_torch.torch_internals import OpOverload


def name_of(node: fx.Node) -> str:
    """Return the name of the operation a node calls, without namespace and overload.

    The name is ``""`` if the node is not a call.
    """
    target = node.target
    if node.op != "call_function":
        return ""
    if isinstance(target, OpOverload):
        return target._schema.name.rpartition("::")[2]
    return str(getattr(target, "__name__", target))


MOVES = frozenset(
    [
        "_local_scalar_dense",
        "_reshape_copy",
        "_unsafe_index",
        "_unsafe_view",
        "alias",
        "alias_copy",
        "as_strided",
        "as_strided_copy",
        "barrier",
        "broadcast_in_dim",
        "cat",
        "clone",
        "copy",
        "detach",
        "detach_copy",
        "diagonal",
        "diagonal_copy",
        "embedding",
        "expand",
        "expand_copy",
        "flip",
        "gather",
        "getitem",
        "index",
        "index_select",
        "lift_fresh",
        "lift_fresh_copy",
        "masked_select",
        "permute",
        "permute_copy",
        "repeat",
        "roll",
        "select",
        "select_copy",
        "slice",
        "slice_copy",
        "split",
        "split_copy",
        "split_with_sizes",
        "split_with_sizes_copy",
        "squeeze",
        "squeeze_copy",
        "stack",
        "t",
        "t_copy",
        "transpose",
        "transpose_copy",
        "unbind",
        "unbind_copy",
        "unfold",
        "unfold_copy",
        "unsqueeze",
        "unsqueeze_copy",
        "view",
        "view_copy",
    ]
)
"""Operations whose results consist only of elements of their arguments."""

CHOICES = frozenset(
    [
        "amax",
        "amin",
        "as_strided_scatter",
        "clamp",
        "clamp_max",
        "clamp_min",
        "constant_pad_nd",
        "cummax",
        "cummin",
        "diagonal_scatter",
        "fill",
        "full",
        "full_like",
        "hardtanh",
        "kthvalue",
        "masked_fill",
        "masked_scatter",
        "max",
        "maximum",
        "median",
        "min",
        "minimum",
        "new_full",
        "relu",
        "scalar_tensor",
        "scatter",
        "select_scatter",
        "slice_scatter",
        "sort",
        "sym_max",
        "sym_min",
        "topk",
        "tril",
        "triu",
        "where",
    ]
)
"""Operations whose results may also contain a number from their arguments, or 0.

Some of them return the positions of elements as well.
"""
