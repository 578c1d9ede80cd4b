"""`BatchData` and `MetricsComputer`, importable under medkit's module name."""

from __future__ import annotations

from typing import Any, Protocol, Self, overload, runtime_checkable

import torch


class _AcceptsMedkit(type):
    """Metaclass of BatchData, for which medkit's BatchData is an instance as well."""

    def __instancecheck__(cls, instance: object) -> bool:
        """Return whether `instance` is a BatchData of this package or of medkit."""
        return super().__instancecheck__(instance) or any(
            (kind.__module__, kind.__qualname__) == _OF_MEDKIT for kind in type(instance).__mro__
        )


_OF_MEDKIT = ("medkit.training.utils", "BatchData")


class BatchData(dict[str, Any], metaclass=_AcceptsMedkit):
    """A batch of columns, torch tensors or lists, with access by column and by row.

    For access by row, all columns need the same number of rows: tensors of shape ``(rows, ...)``,
    of any dtype, and lists with one entry for each row.

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
        """Return a column for a name, a row for an integer, or several rows for a slice.

        Parameters
        ----------
        index : str, int or slice
            A column name, a row, or a range of rows.

        Raises
        ------
        KeyError
            If there is no column of that name.
        """
        if isinstance(index, str):
            return super().__getitem__(index)
        return {name: column[index] for name, column in self.items()}

    def to_device(self, device: torch.device) -> Self:
        """Return a new batch with its tensors on `device` and its other columns unchanged.

        Parameters
        ----------
        device : torch.device
            Device of the new tensors. Tensors inside lists are not moved.
        """
        return type(self)(
            {
                name: column.to(device) if isinstance(column, torch.Tensor) else column
                for name, column in self.items()
            }
        )


@runtime_checkable
class MetricsComputer(Protocol):
    """The interface of an object that computes the scores of a training or evaluation phase.

    Examples
    --------
    >>> class Accuracy:
    ...     def prepare_batch(self, model_output, input_batch):
    ...         correct = model_output["logits"].argmax(-1) == input_batch["labels"]
    ...         return {"correct": correct.tolist()}
    ...
    ...     def compute(self, all_data):
    ...         return {"accuracy": sum(all_data["correct"]) / len(all_data["correct"])}
    >>> isinstance(Accuracy(), MetricsComputer)
    True
    """

    def prepare_batch(
        self, model_output: BatchData, input_batch: BatchData
    ) -> dict[str, list[Any]]:
        """Extract from a batch the data that `compute` needs.

        Parameters
        ----------
        model_output : BatchData
            The outputs of the component's forward, without gradients and without the trainer's
            padding.
        input_batch : BatchData
            The collated batch.

        Returns
        -------
        dict of str to list
            Lists or 1-D tensors; those of all batches of a phase are concatenated.
        """
        ...

    def compute(self, all_data: dict[str, list[Any]]) -> dict[str, float]:
        """Return the scores of a phase, by metric name.

        Parameters
        ----------
        all_data : dict of str to list
            The concatenated results of `prepare_batch`.
        """
        ...
