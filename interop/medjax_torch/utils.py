"""BatchData and MetricsComputer, in medkit's module."""

from __future__ import annotations

from typing import Any, Protocol, Self, overload, runtime_checkable

import torch


class _OfMedkitToo(type):
    """The class of BatchData, for which medkit's own counts as one."""

    def __instancecheck__(cls, instance: object) -> bool:
        """Tell whether `instance` is a BatchData of this package or of medkit."""
        return super().__instancecheck__(instance) or any(
            (kind.__module__, kind.__qualname__) == _OF_MEDKIT for kind in type(instance).__mro__
        )


_OF_MEDKIT = ("medkit.training.utils", "BatchData")


class BatchData(dict[str, Any], metaclass=_OfMedkitToo):
    """A batch of torch tensors and lists, with access by column and by row.

    Examples
    --------
    >>> batch = BatchData(ids=torch.tensor([[1, 2], [3, 4]]), text=["a", "b"])
    >>> batch["text"]
    ['a', 'b']
    >>> batch[1]
    {'ids': tensor([3, 4]), 'text': 'b'}
    """

    @overload
    def __getitem__(self, index: str) -> Any: ...
    @overload
    def __getitem__(self, index: int | slice) -> dict[str, Any]: ...
    def __getitem__(self, index: str | int | slice) -> Any:
        """Return a column for a name, a row for an integer, several rows for a slice.

        Raises
        ------
        KeyError
            If there is no column of that name.
        """
        if isinstance(index, str):
            return super().__getitem__(index)
        return {name: column[index] for name, column in self.items()}

    def to_device(self, device: torch.device) -> Self:
        """Return a new batch whose tensors lie on `device`; other columns stay as they are.

        Parameters
        ----------
        device : torch.device
            Where to put the tensors that are columns themselves.
        """
        return type(self)(
            {
                name: column.to(device) if isinstance(column, torch.Tensor) else column
                for name, column in self.items()
            }
        )


@runtime_checkable
class MetricsComputer(Protocol):
    """Scores a phase: keeps what it needs of each batch, and computes at the end."""

    def prepare_batch(
        self, model_output: BatchData, input_batch: BatchData
    ) -> dict[str, list[Any]]:
        """Return what to keep of a batch.

        Parameters
        ----------
        model_output : BatchData
            What the component's forward returned: tensors without gradient and padding.
        input_batch : BatchData
            The collated batch.

        Returns
        -------
        dict of str to list
            Lists or 1-D tensors; those of all batches of a phase are joined.
        """
        ...

    def compute(self, all_data: dict[str, list[Any]]) -> dict[str, float]:
        """Return the scores of a phase.

        Parameters
        ----------
        all_data : dict of str to list
            What `prepare_batch` returned, joined.
        """
        ...
