"""What a program is traced for: a platform, which need not be the default, and its rules."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import NamedTuple

import jax
from jax.sharding import Mesh

__all__ = [
    "platform_of",
    "target_is_deterministic",
    "target_platform",
    "trace_anew",
    "tracing_for",
]


class _Target(NamedTuple):
    """What a program is traced for; see `tracing_for`."""

    platform: str | None
    deterministic: bool
    generation: int = 0


# A context of JAX: a jitted function within a forward is traced again for another target.
_target = jax.make_user_context(_Target(None, deterministic=False))
_generations = [0]


def platform_of(mesh: Mesh) -> str:
    """Return the platform of a mesh's devices: ``"cpu"``, ``"gpu"`` or ``"tpu"``.

    Examples
    --------
    >>> platform_of(jax.make_mesh((1,), ("data",), devices=jax.devices()[:1]))
    'cpu'
    """
    platform: str = mesh.devices.flat[0].platform
    return platform


def target_platform() -> str:
    """Return the platform of the enclosing `tracing_for`, by default that of JAX's backend.

    Examples
    --------
    >>> with tracing_for("tpu"):
    ...     target_platform()
    'tpu'
    """
    return _target.value.platform or jax.default_backend()


def target_is_deterministic() -> bool:
    """Return whether the enclosing `tracing_for` wants the same bits in every run.

    Examples
    --------
    >>> with tracing_for("gpu", deterministic=True):
    ...     target_is_deterministic()
    True
    """
    wanted: bool = _target.value.deterministic
    return wanted


@contextlib.contextmanager
def tracing_for(platform: str | None, *, deterministic: bool = False) -> Iterator[None]:
    """Trace what is called in a ``with`` block for a platform.

    Parameters
    ----------
    platform : str or None
        ``"cpu"``, ``"gpu"`` or ``"tpu"``; None keeps that of the enclosing block.
    deterministic : bool
        Whether the program has to compute the same bits in every run.
    """
    target = _Target(platform or _target.value.platform, deterministic, _generations[-1])
    with _target(target):
        yield


def trace_anew() -> None:
    """Let no later `tracing_for` use what JAX has traced in earlier ones.

    JAX remembers the trace of a jitted function, and with it the values that the function read.

    Examples
    --------
    >>> scale = [1.0]
    >>> weigh = jax.jit(lambda x: x * scale[0])
    >>> def weighed():
    ...     with tracing_for("cpu"):
    ...         return float(jax.jit(lambda x: weigh(x))(1.0))
    >>> weighed()
    1.0
    >>> scale[0] = 2.0
    >>> weighed()
    1.0
    >>> trace_anew()
    >>> weighed()
    2.0
    """
    _generations[-1] += 1
