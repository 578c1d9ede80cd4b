"""What `doctor` finds on a machine, ready for JSON."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from medjax.checkpoint.space import bytes_in, free_bytes
from medjax.cli.versions import installed_packages, problem_of_python
from medjax.metrics.tables import format_table
from medjax.runtime.compilation_cache import cache_folder
from medjax.runtime.host import host

__all__ = ["as_text", "check_products", "diagnose"]

Found = dict[str, Any]
T = TypeVar("T")

_PREFIXES = (
    "OMP_", "MKL_", "OPENBLAS_", "GOMP_", "KMP_", "XLA_", "JAX_", "CUDA_VISIBLE", "NVIDIA_VISIBLE",
    "TPU_VISIBLE", "TPU_PROCESS", "MALLOC_", "GLIBC_TUNABLES", "NPROC", "SLURM_CPUS",
    "SLURM_JOB_ID", "SLURM_NTASKS",
)  # fmt: skip
"""How the environment variables begin that change how fast or where JAX computes."""

_PREALLOCATE = "XLA_PYTHON_CLIENT_PREALLOCATE"
_NVIDIA = Path("/dev/nvidiactl")
_SIZE = 256  # rows and columns of the product
_GIB = 2**30


def diagnose(folder: Path) -> Found:
    """Return what is known about this machine and what is bad about it.

    Parameters
    ----------
    folder : Path
        Where checkpoints will go.
    """
    environment = dict(os.environ)
    # Looking must not take three quarters of a GPU's memory, as JAX does by default.
    os.environ.setdefault(_PREALLOCATE, "false")
    problems: list[str] = []
    packages = _noting(problems, installed_packages)
    problems += [package.problem for package in packages if package.problem]
    problems += filter(None, [problem_of_python()])
    devices = _noting(problems, _devices)
    products = _noting(problems, check_products)
    problems += [product["problem"] for product in products if product["problem"]]
    found = {
        "platform": platform.platform(),
        "Python": platform.python_version(),
        "packages": [package._asdict() for package in packages],
        "devices": devices,
        "host": host()._asdict(),
        "environment": {
            name: value for name, value in sorted(environment.items()) if name.startswith(_PREFIXES)
        },
        "disk": _disk(folder, problems),
        "compilation cache": _cache(),
        "products": products,
        "notes": list(_notes(devices)),
    }
    return {"sound": not problems, "problems": problems, **found}


def _noting(problems: list[str], look: Callable[[], list[T]]) -> list[T]:
    """Return what `look` returns, or nothing after noting what it raised."""
    try:
        return look()
    except (ValueError, RuntimeError, OSError) as error:
        problems.append(f"{type(error).__name__}: {error}")
        return []


def _devices() -> list[Found]:
    return [
        {
            "id": device.id,
            "platform": device.platform,
            "kind": device.device_kind,
            "memory": (device.memory_stats() or {}).get("bytes_limit"),
            "used memory": (device.memory_stats() or {}).get("bytes_in_use"),
        }
        for device in jax.local_devices()
    ]


def _disk(folder: Path, problems: list[str]) -> Found:
    existing = next(
        path for path in (folder.absolute(), *folder.absolute().parents) if path.exists()
    )
    is_writable = existing.is_dir() and os.access(existing, os.W_OK)
    if not is_writable:
        problems.append(f"{existing} cannot be written to; choose another folder for the results")
    return {"folder": str(existing), "free": free_bytes(existing), "writable": is_writable}


def _cache() -> Found:
    try:
        folder = cache_folder()
    except RuntimeError:  # no device, which is told elsewhere
        folder = None
    if folder is None:
        return {"folder": None}
    programs = list(folder.glob("*-cache")) if folder.is_dir() else []
    return {"folder": str(folder), "programs": len(programs), "bytes": bytes_in(folder)}


def _notes(devices: list[Found]) -> Iterator[str]:
    platforms = {device["platform"] for device in devices}
    if platforms == {"cpu"} and _NVIDIA.exists():
        yield (
            "there is an NVIDIA GPU, but JAX computes on the CPU: "
            'pip install "jax[cuda12]" in the version that is installed'
        )


def check_products(multiply: Callable[[Any, Any], Any] = jnp.matmul) -> list[Found]:
    """Compare a small product on each device with that of numpy in float64.

    With n terms, unit roundoff u of float32 and v of the dtype of the result, an element may be
    off by :math:`v |AB| + n u (|A| |B|)`, as any order of adding up is.

    Parameters
    ----------
    multiply : callable
        What is compiled and compared.

    References
    ----------
    Higham (2002), Accuracy and Stability of Numerical Algorithms, 2nd edition, section 3.5.
    """
    drawn = np.random.default_rng(0).normal(size=(2, _SIZE, _SIZE))
    results = []
    for device in jax.local_devices():
        for dtype in (jnp.float32, jnp.bfloat16):
            a, b = (jax.device_put(jnp.asarray(each, dtype), device) for each in drawn)
            with jax.default_matmul_precision("highest"):
                found = np.asarray(jax.jit(multiply)(a, b), np.float64)
            a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
            exact = a @ b
            allowed = jnp.finfo(dtype).eps * np.abs(exact)
            allowed = allowed + _SIZE * np.finfo(np.float32).eps * (np.abs(a) @ np.abs(b))
            worst = float(np.max(np.abs(found - exact) / allowed))
            name = f"{device.platform}:{device.id} {jnp.dtype(dtype).name}"
            problem = (
                None
                if worst <= 1  # False for NaN, too
                else f"{name}: a product of {_SIZE} x {_SIZE} matrices is off by {worst:.3g} times "
                "what rounding explains; install another release of jaxlib or driver"
            )
            results.append({"name": name, "error": worst, "problem": problem})
    return results


def as_text(found: Found) -> str:
    """Return the findings of `diagnose` in lines for a terminal."""
    lines = [f"{found['platform']}, Python {found['Python']}", ""]
    rows = [["package", "version", "needed by"]]
    for package in found["packages"]:
        if package["version"] is not None or package["problem"]:
            needed = ", ".join(f"medjax[{extra}]" for extra in package["extras"]) or "medjax"
            mark = " (BAD)" if package["problem"] else ""
            rows.append([package["name"], f"{package['version']}{mark}", needed])
    lines += [format_table(rows), ""]
    for device in found["devices"]:
        limit, used = device["memory"], device["used memory"]
        memory = "" if limit is None else f", {_gib(limit)}, {_gib(used or 0)} of it in use"
        lines.append(f"device        {device['platform']}:{device['id']} {device['kind']}{memory}")
    for product in found["products"]:
        verdict = "wrong" if product["problem"] else "right"
        share = f"{product['error']:.2g} of the error that rounding explains"
        lines.append(f"product       {product['name']}: {verdict}, {share}")
    here, disk, cache = found["host"], found["disk"], found["compilation cache"]
    free = "unknown" if disk["free"] is None else _gib(disk["free"])
    programs = (
        "nowhere by default, see compilation_cache in Options"
        if cache["folder"] is None
        else f"{cache['folder']}: {cache['programs']} programs, {_gib(cache['bytes'])}"
    )
    lines += [
        f"cores         {here['nb_usable_cores']:g} of {here['nb_cores']} may be used",
        f"memory        {_gib(here['free_memory'])} of {_gib(here['memory'])} free",
        f"disk          {free} free in {disk['folder']}",
        f"programs kept {programs}",
        *(f"environment   {name}={value}" for name, value in found["environment"].items()),
        *(f"note          {note}" for note in found["notes"]),
        "",
        *(f"BAD: {problem}" for problem in found["problems"]),
    ]
    return "\n".join(lines + ([] if found["problems"] else ["Nothing is known to be bad."]))


def _gib(number: int) -> str:
    return f"{number / _GIB:.1f} GiB"
