"""What a benchmark ran on, and how much of its device's memory it took."""

from __future__ import annotations

import platform
import sys
from importlib.metadata import PackageNotFoundError, version

import jax

PACKAGES = ("jax", "flax", "torch", "transformers", "medkit-lib", "lightning")


def describe() -> str:
    """Return the platform and the versions of what is installed."""
    found = []
    for package in PACKAGES:
        try:
            found.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            continue
    return f"{platform.platform()}, Python {platform.python_version()}, {', '.join(found)}"


def device_kind() -> str:
    """Return the name of the device, of torch if that computes on it, else of JAX."""
    if _torch_computes():
        return str(sys.modules["torch"].cuda.get_device_name())
    return jax.local_devices()[0].device_kind


def device_mb() -> float | None:
    """Return the most memory of the accelerator that was in use, by torch or by JAX, in MiB."""
    if _torch_computes():
        return float(sys.modules["torch"].cuda.max_memory_allocated() / 2**20)
    stats = jax.local_devices()[0].memory_stats()
    return stats["peak_bytes_in_use"] / 2**20 if stats else None


def _torch_computes() -> bool:
    """Tell whether torch has memory of a GPU; JAX, once asked, would take most of the rest."""
    return "torch" in sys.modules and sys.modules["torch"].cuda.max_memory_allocated() > 0
