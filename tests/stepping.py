"""Batches for a small component, intact or broken, and comparisons of its parameters."""

import jax
import numpy as np
from tiny import on_device, points

POINTS = points(24, weighted=True)


def batches(component, size, items=POINTS):
    return [on_device(component, items[i : i + size], size) for i in range(0, len(items), size)]


def params(state):
    return jax.device_get(state.params)


def assert_close(a, b, tolerance=1e-6):
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_allclose(x, y, rtol=tolerance, atol=tolerance)


def broken(items):
    return [{**items[0], "x": items[0]["x"] * np.nan}, *items[1:]]


def with_broken(component, positions, size=4):
    chunks = [POINTS[i : i + size] for i in range(0, len(POINTS), size)]
    return [
        on_device(component, broken(chunk) if number in positions else chunk)
        for number, chunk in enumerate(chunks)
    ]
