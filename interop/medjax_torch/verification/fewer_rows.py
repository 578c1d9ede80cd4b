"""A few rows of a batch, which cost less to compute than all of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from medjax_torch.batches.mapping import rebuilt
from medjax_torch.batches.padding import Ragged

NB_ROWS = 4
"""Enough for rows to meet in a batch norm or a contrastive loss, with a long and a short one."""


def fewer_rows(batch: Mapping[str, Any], ragged: Sequence[Ragged], turn: int = 0) -> Any:
    """Return a batch of `NB_ROWS` rows: the longest, and others from long to short.

    Parameters
    ----------
    batch : mapping of str to value
        A batch. Its rows are the first axis of all its columns, if they agree; lists of that many
        items follow.
    ragged : sequence of Ragged
        The axes whose content tells how long a row is; none of them may be the rows themselves.
    turn : int
        Every turn takes other rows besides the longest, as far as there are any.

    Returns
    -------
    mapping
        A batch of the same type and sizes of `ragged`; the batch itself if it has no more rows
        than that, or its rows are not evident.

    Examples
    --------
    >>> ids = torch.arange(1, 8).reshape(7, 1).expand(7, 7).tril()
    >>> ragged = Ragged((("ids", 1),), {"ids": 0}, ())
    >>> [fewer_rows({"ids": ids}, [ragged], turn)["ids"][:, 0].tolist() for turn in range(2)]
    [[7, 6, 4, 2], [7, 5, 3, 1]]
    """
    number = _nb_rows(batch, ragged)
    if number is None or number <= NB_ROWS:
        return batch
    first, *others = _lengths(batch, ragged, number).argsort(descending=True, stable=True).tolist()
    step = len(others) // (NB_ROWS - 1)
    rows = [first, *others[turn % step :: step][: NB_ROWS - 1]]
    return rebuilt(batch, {name: _taken(column, rows, number) for name, column in batch.items()})


def _nb_rows(batch: Mapping[str, Any], ragged: Sequence[Ragged]) -> int | None:
    """Return the number of rows; None if columns disagree or cannot be indexed."""
    sizes = set()
    for column in batch.values():
        if isinstance(column, Mapping):
            return None
        if isinstance(column, Tensor):
            if column.is_nested or column.layout != torch.strided or not column.ndim:
                return None
            sizes.add(column.shape[0])
    taken = {axis for each in ragged for _, axis in each.column_axes}
    return sizes.pop() if len(sizes) == 1 and 0 not in taken else None


def _lengths(batch: Mapping[str, Any], ragged: Sequence[Ragged], number: int) -> Tensor:
    """Return how far each row is filled with something else than padding, shape (rows,)."""
    lengths = torch.zeros(number, dtype=torch.int64)
    slots = [(*slot, each.fills[slot[0]]) for each in ragged for slot in each.column_axes]
    for name, axis, fill in slots:
        if fill is None:
            continue
        column = batch[name].detach().cpu()
        filled = (column != fill).movedim(axis, 1).reshape(number, column.shape[axis], -1).any(2)
        places = torch.arange(1, filled.shape[1] + 1)
        lengths = torch.maximum(lengths, (filled * places).amax(1))
    return lengths


def _taken(column: Any, rows: list[int], number: int) -> Any:
    if isinstance(column, Tensor):
        return column[rows]
    if type(column) in (list, tuple) and len(column) == number:
        return type(column)(column[row] for row in rows)
    return column
