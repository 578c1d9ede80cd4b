"""The platform that a program is traced for, which the default backend need not be."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar

import jax
from jax.sharding import Mesh

__all__ = ["platform_of", "target_platform", "tracing_for"]

_target: ContextVar[str | None] = ContextVar("target", default=None)


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
    return _target.get() or jax.default_backend()


@contextlib.contextmanager
def tracing_for(platform: str | None) -> Iterator[None]:
    """Trace what is called in a ``with`` block for a platform; None changes nothing.

    Parameters
    ----------
    platform : str or None
        ``"cpu"``, ``"gpu"`` or ``"tpu"``.
    """
    token = _target.set(platform if platform is not None else _target.get())
    try:
        yield
    finally:
        _target.reset(token)
