"""How the programs of the steps are compiled on each platform."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import jax
from jax.extend.core import Literal, jaxprs_in_params
from jax.sharding import Mesh

from medjax.config import Options
from medjax.target import platform_of

__all__ = ["compiled_for"]

_ON_CPU = {
    # It removes the barriers between what is computed first and what gradient checkpointing
    # computes again, then merges both: the time would be spent and no memory saved.
    "xla_disable_hlo_passes": "cse_barrier_expander",
}
_ON_CPU_SUMS_WHOLE = {
    # It splits each sum in two, and jaxlib below 0.11 then writes the terms of the first, such as
    # the square of each gradient, to memory: 175 ms a step of MiniLM in float32 instead of 133.
    "xla_disable_hlo_passes": "cse_barrier_expander,tree_reduction_rewriter",
}
_SPLITTING_IS_SLOW = jax.__version_info__ < (0, 11)
_LONGEST = 2**18
"""Terms of a float32 sum that is within 1e-5 of the exact one without being split; measured."""

_ON_GPU = {
    # Choosing among Triton's kernels for each matrix product takes most of the time to compile in
    # float32, and cuBLAS is as fast: BERT-base, 16 x 128 on an H200, 12.5 ms a step and not 13.3.
    "xla_gpu_enable_triton_gemm": False,
}
_DETERMINISTIC = {
    # Without it sums are added up in any order, and a resumed run differs in the last bits.
    "xla_gpu_deterministic_ops": True,
}


def compiled_for(mesh: Mesh, options: Options | None, *, is_large: bool = False) -> dict[str, Any]:
    """Return the arguments of `CompiledStep` that depend on the platform of a mesh.

    Parameters
    ----------
    mesh : jax.sharding.Mesh
        Where the step runs.
    options : Options, optional
        For `deterministic`.
    is_large : bool
        Whether a step takes so long that it is worth looking at what it sums.
    """
    platform, options = platform_of(mesh), options or Options()
    if platform == "gpu":
        wanted = {**_ON_GPU, **(_DETERMINISTIC if options.deterministic else {})}
        return {
            "platform": platform,
            "deterministic": options.deterministic,
            "compiler_options": wanted,
        }
    on_cpu = platform == "cpu"
    return {
        "platform": platform,
        "compiler_options": _ON_CPU if on_cpu else None,
        "options_for": _on_cpu if on_cpu and is_large and _SPLITTING_IS_SLOW else None,
    }


def _on_cpu(jaxpr: Any) -> Mapping[str, Any]:
    """Return the compiler's options for a program on the CPU; long sums are split."""
    longest, _ = _longest(jaxpr, 1)
    return _ON_CPU if longest > _LONGEST else _ON_CPU_SUMS_WHOLE


_SUMS = frozenset({"reduce", "reduce_prod", "reduce_sum"})
_LAYOUTS = frozenset(
    {
        "broadcast_in_dim",
        "concatenate",
        "convert_element_type",
        "copy",
        "copy_p",
        "dynamic_slice",
        "gather",
        "neg",
        "pad",
        "reshape",
        "rev",
        "select_n",
        "slice",
        "split",
        "squeeze",
        "stack",
        "tile",
        "transpose",
    }
)
"""What XLA looks through when it makes one sum of a sum of sums."""
_WITH_A_CONSTANT = frozenset({"add", "div", "max", "min", "mul", "pow", "sub"})
"""What XLA looks through if one operand is a constant, such as 0 or 1, that changes nothing."""


def _longest(jaxpr: Any, terms: int) -> tuple[int, int]:
    """Return the most terms of a sum in a program, and of one that an output is.

    Parameters
    ----------
    jaxpr : jax.extend.core.Jaxpr
        The program.
    terms : int
        The terms of the sums that its inputs are, 1 if they are none.
    """
    jaxpr = getattr(jaxpr, "jaxpr", jaxpr)
    known = dict.fromkeys(jaxpr.invars, terms)
    constants = set(jaxpr.constvars)

    def is_constant(atom: Any) -> bool:
        return isinstance(atom, Literal) or atom in constants

    def most(atoms: Iterable[Any]) -> int:
        return max((known.get(a, 1) for a in atoms if not isinstance(a, Literal)), default=1)

    longest = 1
    for equation in jaxpr.eqns:
        name, before = equation.primitive.name, most(equation.invars)
        inner = [_longest(each, before) for each in jaxprs_in_params(equation.params)]
        fixed = [is_constant(atom) for atom in equation.invars]
        if all(fixed):
            constants.update(equation.outvars)
        if name in _SUMS:
            nb_all, nb_left = (
                math.prod(var.aval.shape) for var in (equation.invars[0], equation.outvars[0])
            )
            after = before * (nb_all // max(nb_left, 1))
        elif name in _LAYOUTS or (name in _WITH_A_CONSTANT and any(fixed)):
            after = before
        else:
            after = max((of_output for _, of_output in inner), default=1)
        longest = max([longest, after, _contracted(equation), *(within for within, _ in inner)])
        known.update(dict.fromkeys(equation.outvars, after))
    return longest, most(jaxpr.outvars)


def _contracted(equation: Any) -> int:
    """Return the terms of the sums in a product or convolution; XLA may make them plain sums."""
    if equation.primitive.name == "dot_general":
        (axes, _), _ = equation.params["dimension_numbers"]
        return math.prod(equation.invars[0].aval.shape[axis] for axis in axes)
    if equation.primitive.name == "conv_general_dilated":
        kernel, features = equation.invars[1].aval.shape, equation.params["dimension_numbers"]
        return int(math.prod(kernel) // max(kernel[features.rhs_spec[0]], 1))
    return 1
