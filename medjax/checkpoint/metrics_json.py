"""The history as JSON, whatever `MetricsComputer.compute` returned.

A run is not ended because a score cannot be stored: what JSON has no form for becomes text.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Mapping
from typing import Any

__all__ = ["array_to_json", "history_to_json"]

logger = logging.getLogger("medjax")

_History = list[dict[str, dict[str, Any]]]


def history_to_json(history: _History) -> _History:
    """Convert the metrics of all epochs to what JSON can hold.

    What converts to a number is stored as one, such as tensors of one element; other arrays are
    stored as lists and the rest as text, of which a warning tells once for each metric.

    Examples
    --------
    >>> import numpy as np
    >>> history_to_json([{"eval": {"loss": np.float32(0.5), "confusion": np.eye(2, dtype=int)}}])
    [{'eval': {'loss': 0.5, 'confusion': [[1, 0], [0, 1]]}}]
    """
    return [
        {phase: _Score.all_of(metrics, phase) for phase, metrics in row.items()} for row in history
    ]


def array_to_json(value: Any) -> Any:
    """Return the numbers of an array or tensor: one number if it has one element, else a list.

    Raises
    ------
    TypeError
        If it is none, or has elements that are no numbers, strings or bools.

    Examples
    --------
    >>> import numpy as np
    >>> array_to_json(np.array([0.5])), array_to_json(np.array([1, 2]))
    (0.5, [1, 2])
    """
    try:
        made = value.tolist()
    except Exception as error:  # whatever the library raises, such as torch for sparse tensors
        raise TypeError(f"{type(value).__name__} has no list of numbers") from error
    inner = made
    while isinstance(inner, list) and len(inner) == 1:
        inner = inner[0]
    return _elements(made if isinstance(inner, list) else inner)


def _elements(made: Any) -> Any:
    if isinstance(made, list):
        return [_elements(element) for element in made]
    if made is None or isinstance(made, bool | int | float | str):
        return made
    return float(made)  # a scalar of bfloat16, which NumPy has no Python type for


class _Score:
    """Converts one metric, whose name and phase a warning tells."""

    def __init__(self, name: str, phase: str) -> None:
        self._name, self._phase = name, phase

    @classmethod
    def all_of(cls, metrics: Mapping[Any, Any], phase: str) -> dict[str, Any]:
        """Return all metrics of a phase."""
        return {str(name): cls(str(name), phase).stored(v) for name, v in metrics.items()}

    def stored(self, value: Any) -> Any:
        """Return a value in a form that JSON has."""
        try:
            return self._stored(value)
        except RecursionError:  # a container that contains itself
            return self._text(value)

    def _stored(self, value: Any) -> Any:
        if value is None or isinstance(value, bool | int | float | str):
            return value
        if isinstance(value, list | tuple):
            return [self._stored(element) for element in value]
        if isinstance(value, Mapping):
            named = {self._key(key, value): element for key, element in value.items()}
            return {key: self._stored(element) for key, element in named.items()}
        try:
            return array_to_json(value) if hasattr(value, "tolist") else float(value)
        except (TypeError, ValueError, ArithmeticError):
            return self._text(value)

    def _key(self, key: Any, mapping: Mapping[Any, Any]) -> Any:
        if key is None or isinstance(key, bool | int | float | str):
            return key
        kind = f"{type(mapping).__name__} with keys of type {type(key).__name__}"
        _tell_once(self._name, self._phase, kind)
        return str(key)

    def _text(self, value: Any) -> str:
        _tell_once(self._name, self._phase, type(value).__name__)
        try:
            return str(value)
        except Exception:  # raised by the __str__ of the user's class
            return f"<{type(value).__name__}>"


@functools.cache
def _tell_once(name: str, phase: str, kind: str) -> None:
    logger.warning(
        f"the metric {name!r} of {phase} is or contains a {kind}, for which a checkpoint has no "
        "form. It is stored as text, so the history of a resumed run has that text in these "
        "epochs. Return numbers, strings, lists, dicts or arrays from compute to keep the values"
    )
