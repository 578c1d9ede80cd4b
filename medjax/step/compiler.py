"""How the programs of the steps are compiled on each platform."""

from __future__ import annotations

from typing import Any

from jax.sharding import Mesh

from medjax.config import Options
from medjax.target import platform_of

__all__ = ["compiled_for"]

_ON_CPU = {
    # It removes the barriers between what is computed first and what gradient checkpointing
    # computes again, then merges both: the time would be spent and no memory saved.
    "xla_disable_hlo_passes": "cse_barrier_expander",
}
_ON_GPU = {
    # Choosing among Triton's kernels for each matrix product takes most of the time to compile in
    # float32, and cuBLAS is as fast: BERT-base, 16 x 128 on an H200, 12.5 ms a step and not 13.3.
    "xla_gpu_enable_triton_gemm": False,
}
_DETERMINISTIC = {
    # Without it sums are added up in any order, and a resumed run differs in the last bits.
    "xla_gpu_deterministic_ops": True,
}


def compiled_for(mesh: Mesh, options: Options | None) -> dict[str, Any]:
    """Return the arguments of `CompiledStep` that depend on the platform of a mesh.

    Parameters
    ----------
    mesh : jax.sharding.Mesh
        Where the step runs.
    options : Options, optional
        For `deterministic`.
    """
    platform, options = platform_of(mesh), options or Options()
    if platform == "gpu":
        wanted = {**_ON_GPU, **(_DETERMINISTIC if options.deterministic else {})}
        return {
            "platform": platform,
            "deterministic": options.deterministic,
            "compiler_options": wanted,
        }
    return {"platform": platform, "compiler_options": _ON_CPU if platform == "cpu" else None}
