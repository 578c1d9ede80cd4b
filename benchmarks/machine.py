"""Describe the machine of a benchmark, and how much device memory the benchmark took."""

from __future__ import annotations

import platform
import sys
from importlib.metadata import PackageNotFoundError, version

import jax

PACKAGES = ("jax", "flax", "torch", "transformers", "medkit-lib", "lightning")


def describe() -> str:
    """Return the platform and the versions of the packages installed."""
    installed = []
    for package in PACKAGES:
        try:
            installed.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            continue
    return f"{platform.platform()}, Python {platform.python_version()}, {', '.join(installed)}"


def device_kind() -> str:
    """Return the name of the device: torch's if torch computes on a GPU, else JAX's."""
    if _torch_computes():
        return str(sys.modules["torch"].cuda.get_device_name())
    return jax.local_devices()[0].device_kind


def device_mb() -> float | None:
    """Return the peak memory in use on the accelerator, by torch or by JAX, in MiB."""
    if _torch_computes():
        return float(sys.modules["torch"].cuda.max_memory_allocated() / 2**20)
    stats = jax.local_devices()[0].memory_stats()
    return stats["peak_bytes_in_use"] / 2**20 if stats else None


def _torch_computes() -> bool:
    """Tell whether torch has used a GPU; initialising JAX would reserve most of the rest."""
    return "torch" in sys.modules and sys.modules["torch"].cuda.max_memory_allocated() > 0
