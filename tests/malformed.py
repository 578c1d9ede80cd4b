"""Malformed inputs of every kind; each may give an answer or a documented exception."""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

FUZZED = pytest.mark.parametrize("times", [60, pytest.param(1000, marks=pytest.mark.slow)])
"""How many inputs a test tries; all long forms together try more than 10,000."""


def attempts(
    times: int, strategy: st.SearchStrategy, attempt: Callable[[Any], Any], allowed: Any
) -> None:
    """Hand `times` inputs to `attempt`; fail if it raises anything but an `allowed` exception.

    Some have to be refused, or else they were not malformed.
    """
    tried = refused = 0

    @settings(
        max_examples=times, deadline=None, database=None, suppress_health_check=list(HealthCheck)
    )
    @given(strategy)
    def law(value: Any) -> None:
        nonlocal tried, refused
        tried += 1
        try:
            attempt(value)
        except allowed:
            refused += 1

    law()
    print(f"{tried} inputs tried, {refused} refused")
    assert tried >= times
    assert refused > 0


def names_a_field(error: ValueError, record: str, fields: dict[str, Any]) -> None:
    """Fail unless the message of `error` begins with one of the fields that were given."""
    assert str(error).startswith(tuple(f"{record}.{name} is " for name in fields)), error


NUMBERS = st.one_of(
    st.integers(-3, 600),
    st.sampled_from([-1, 0, 2**31, 2**63, 2**64, -(2**70), 10**400, math.nan, math.inf, -math.inf]),
    st.floats(),
)
JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), NUMBERS, st.text(max_size=8)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=5), inner, max_size=4)
    ),
    max_leaves=8,
)
ANYTHING = st.one_of(
    JSON,
    st.binary(max_size=8),
    st.lists(NUMBERS, max_size=4).map(tuple),
    st.sampled_from(
        [
            *(object(), object, len, 1j, {1, 2}, range(3), Decimal("NaN"), Fraction(1, 3), Path()),
            *(np.float32(2), np.int64(3), np.bool_(True), np.arange(3), np.zeros(())),
            *(np.array(["a", "b"]), np.datetime64("2020"), "\0", "\ud800", ""),
        ]
    ),
)


@st.composite
def mutated(draw: Any, valid: Any) -> Any:
    """Return a JSON value with one to three places replaced, removed or added to."""
    root = [copy.deepcopy(valid)]
    for _ in range(draw(st.integers(1, 3))):
        holder, key = draw(st.sampled_from(_places(root)))
        kind = draw(st.sampled_from(["replace", "replace", "remove", "add"]))
        if kind == "remove" and holder is not root:
            del holder[key]
        elif kind == "add" and isinstance(holder[key], dict):
            holder[key][draw(st.text(max_size=5))] = draw(JSON)
        elif kind == "add" and isinstance(holder[key], list):
            holder[key].append(draw(JSON))
        else:
            holder[key] = draw(JSON)
    return root[0]


def _places(value: Any) -> list[tuple[Any, Any]]:
    """Return (container, key) of everything within a JSON value."""
    items: list[Any] = []
    if isinstance(value, dict):
        items = list(value.items())
    elif isinstance(value, list):
        items = list(enumerate(value))
    return [place for key, inner in items for place in [(value, key), *_places(inner)]]


class Deep(bytes):
    """What opens more brackets than a parser follows."""

    def __new__(cls, opened: bytes) -> Deep:
        return super().__new__(cls, 100_000 * opened)

    def __repr__(self) -> str:
        return f"Deep({self[:5]!r})"


def json_files(valid: Any, *, lines: bool = False) -> st.SearchStrategy[bytes]:
    """Return files that ought to hold JSON: another content, or damaged on the way."""

    def text(value: Any) -> bytes:
        written = map(json.dumps, value) if lines else [json.dumps(value)]
        return "\n".join(written).encode()

    rows = mutated(valid).filter(lambda value: isinstance(value, list)) if lines else mutated(valid)
    deep = st.sampled_from([Deep(b"["), Deep(b'{"a":'), b"9" * 5_000, b"", b"\xff\xfe[1]"])
    return st.one_of(rows.map(text), rows.map(text), damaged(text(valid)), deep)


@st.composite
def damaged(draw: Any, content: bytes) -> bytes:
    """Return bytes that were cut short, or changed in some places."""
    changed = bytearray(content)
    for _ in range(draw(st.integers(0, 4))):
        changed[draw(st.integers(0, len(changed) - 1))] = draw(st.integers(0, 255))
    return bytes(changed[: draw(st.integers(0, len(changed)))])
