"""Counting the batch shapes of a run, each of which costs a trace and a compilation."""

from __future__ import annotations

import collections
import warnings
from collections.abc import Callable, Hashable, Iterable, Mapping
from typing import Any

from medjax.data.policy import ShapeLimit
from medjax_torch.graph import signature

WARN_AFTER = 8
"""Number of shapes after which a run warns, and again whenever it has doubled."""

_SHOWN = 3  # values of a column shown in a message


class ShapeCount:
    """Counts the distinct shapes of batches; warns, and stops the run at a limit.

    Parameters
    ----------
    limit : int
        Maximum number of shapes: `medjax.Options.max_shapes`.
    warn_after : int
        Number of shapes allowed without a warning.
    seconds : callable, optional
        Returns the seconds spent on tracing and compiling so far.
    reasons : callable, optional
        Takes column names and returns why these columns are not padded.
    """

    def __init__(
        self,
        limit: int,
        warn_after: int = WARN_AFTER,
        *,
        seconds: Callable[[], float] = lambda: 0.0,
        reasons: Callable[[Iterable[str]], Iterable[str]] = lambda columns: (),
    ) -> None:
        self._shapes = ShapeLimit(limit)
        self._warn_at = warn_after + 1
        self._seconds = seconds
        self._reasons = reasons
        # A dict, as unlike a set it keeps the order of the batches for the messages.
        self._columns: dict[str, dict[tuple[Any, ...], None]] = collections.defaultdict(dict)

    def __len__(self) -> int:
        """Return the number of distinct shapes so far."""
        return len(self._shapes)

    def add(self, batch: Mapping[str, Any], shape: Hashable = None) -> bool:
        """Count a batch and return whether its shape is new.

        Parameters
        ----------
        batch : mapping of str to value
            The batch.
        shape : hashable, optional
            Its `signature`, if that is known.

        Raises
        ------
        ValueError
            If the shape is new and the limit was already reached.

        Warns
        -----
        UserWarning
            At the first shape after `warn_after`, and whenever the number has doubled.
        """
        key: Any = shape or signature(batch)
        if key in self._shapes.seen:
            return False
        for path, *value in key[1]:
            self._columns[path][tuple(value)] = None
        cost = self._cost(max(1, len(self)))
        self._shapes.add(key, lambda: (self._varying(), self._remedy()), cost)
        count = len(self)
        if count == self._warn_at:
            msg = (
                f"the batches have had {count} shapes so far{self._cost(count - 1)}: "
                f"{self._varying()}"
            )
            allowed = f"The run stops after {self._shapes.limit} shapes (Options.max_shapes)"
            warnings.warn(f"{msg}. {self._remedy()}. {allowed}", UserWarning, stacklevel=2)
            self._warn_at *= 2
        return True

    def _cost(self, count: int) -> str:
        seconds = self._seconds()
        if not seconds:
            return ""
        return f", which took {seconds:.1f} s to trace and compile, {seconds / count:.1f} s each"

    def _varying(self) -> str:
        """Say which columns vary, and how."""
        columns = {path: list(values) for path, values in self._columns.items() if len(values) > 1}
        if not columns:
            return "the names of the columns differ"
        return "; ".join(f"column {path!r}: {_listed(vs)}" for path, vs in columns.items())

    def _remedy(self) -> str:
        """Say why columns are not padded, and what can be done about it."""
        varying = [path for path, values in self._columns.items() if len(values) > 1]
        tensors = [path for path in varying if any(v[0] == "tensor" for v in self._columns[path])]
        if not tensors:
            return "Each costs a compilation; remove from the batch what forward does not need"
        why = [f"{reason}. " for reason in self._reasons(tensors)]
        return (
            f"{''.join(why)}Each costs a compilation; pad to a few sizes in collate, and let "
            "forward ignore the padding, as cross_entropy ignores labels of -100; or, if a fill "
            "other than 0, False or -100 is harmless, set it with "
            "Options(padding={column: fill})"
        )


def _listed(values: list[Any]) -> str:
    described = [_describe(*value) for value in values]
    shown = list(dict.fromkeys(described))[:_SHOWN]
    return ", ".join(shown) + (", ..." if len(described) > len(shown) else "")


def _describe(kind: str, *value: Any) -> str:
    if kind == "tensor":
        shape, dtype = value
        return f"{tuple(shape)} {str(dtype).removeprefix('torch.')}"
    return f"a constant {kind}" if kind == "array" else f"the constant {value[0]!r:.40}"
