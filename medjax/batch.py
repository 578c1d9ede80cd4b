"""BatchData: a batch as a dict of columns that is also a JAX pytree.

The host pads a short batch with copies of a real row, so that every batch has the same number of
rows. The column `ROW_MASK` says which rows are real; a loss gives the others weight zero.
"""

from __future__ import annotations

from typing import Any, Self, overload

import jax
import numpy as np

__all__ = ["ROW_MASK", "BatchData"]

ROW_MASK = "row_mask"
"""Name of the column that is 1.0 for a real row and 0.0 for padding, shape (rows,), float32."""


def _is_array(value: Any) -> bool:
    return isinstance(value, (np.ndarray, jax.Array))


def _summary(column: Any) -> str:
    if hasattr(column, "dtype") and hasattr(column, "shape"):
        return f"{column.dtype}[{','.join(map(str, column.shape))}]"
    kind = type(column).__name__
    return f"{kind} of {len(column)}" if hasattr(column, "__len__") else kind


@jax.tree_util.register_pytree_with_keys_class
class BatchData(dict[str, Any]):
    """A batch of data with access by column and by row.

    Columns are numpy arrays, JAX arrays or plain (possibly ragged) lists, all with one entry per
    row. A batch is a pytree whose children are its columns, ordered by name, so a batch of arrays
    can be passed to `jax.jit`, `jax.grad`, `jax.tree.map` and `jax.device_put`.

    Examples
    --------
    >>> batch = BatchData(input_ids=np.array([[1, 2], [3, 4]]), text=["a", "b c"])
    >>> batch["text"]
    ['a', 'b c']
    >>> batch[1]
    {'input_ids': array([3, 4]), 'text': 'b c'}
    >>> batch.nb_rows
    2
    >>> batch
    BatchData(input_ids: int64[2,2], text: list of 2)
    """

    @overload
    def __getitem__(self, index: str) -> Any: ...
    @overload
    def __getitem__(self, index: int | slice) -> dict[str, Any]: ...
    def __getitem__(self, index: str | int | slice) -> Any:
        """Return a column for a name, a row for an integer, or several rows for a slice.

        Raises
        ------
        KeyError
            If there is no column of that name.
        IndexError
            If there is no row of that number.
        ValueError
            If `index` is an integer or a slice and the columns differ in length.
        """
        if isinstance(index, str):
            return super().__getitem__(index)
        nb_rows = self.nb_rows
        if not isinstance(index, slice) and not -nb_rows <= index < nb_rows:
            msg = f"row {index} is out of range for a batch of {nb_rows} rows"
            raise IndexError(msg)
        return {name: column[index] for name, column in self.items()}

    def __repr__(self) -> str:
        """Return the names, types and shapes of the columns, as their values may fill pages."""
        columns = ", ".join(f"{name}: {_summary(column)}" for name, column in self.items())
        return f"{type(self).__name__}({columns})"

    @property
    def nb_rows(self) -> int:
        """Number of rows.

        Raises
        ------
        ValueError
            If a column has no length or the columns differ in length.
        """
        lengths: dict[str, int] = {}
        for name, column in self.items():
            if not hasattr(column, "__len__") or getattr(column, "shape", None) == ():
                msg = f"column {name!r} of a batch is {column!r:.80}; expected one entry per row"
                raise ValueError(msg)
            lengths[name] = len(column)
        if len(set(lengths.values())) > 1:
            msg = (
                f"the columns of a batch differ in length: {lengths}; "
                "collate must return one entry per row in each column"
            )
            raise ValueError(msg)
        return next(iter(lengths.values()), 0)

    def to_device(self, device: jax.Device | jax.sharding.Sharding) -> Self:
        """Return a copy whose array columns are on `device`; lists stay on the host.

        Parameters
        ----------
        device : jax.Device or jax.sharding.Sharding
            Where to put the array columns.
        """
        arrays = {name: column for name, column in self.items() if _is_array(column)}
        return type(self)({**self, **jax.device_put(arrays, device)})

    def arrays(self) -> Self:
        """Return a batch of the array columns only."""
        return type(self)({name: column for name, column in self.items() if _is_array(column)})

    def tree_flatten_with_keys(self) -> tuple[list[tuple[Any, Any]], tuple[str, ...]]:
        """Return (key, column) pairs sorted by name, and the names."""
        names = tuple(sorted(self))
        return [(jax.tree_util.DictKey(name), self[name]) for name in names], names

    def tree_flatten(self) -> tuple[list[Any], tuple[str, ...]]:
        """Return the columns sorted by name, and the names; faster than with the keys."""
        names = tuple(sorted(self))
        return [super(BatchData, self).__getitem__(name) for name in names], names

    @classmethod
    def tree_unflatten(cls, names: tuple[str, ...], columns: Any) -> Self:
        """Rebuild the batch from its names and columns."""
        return cls(zip(names, columns, strict=True))
