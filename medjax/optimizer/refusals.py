"""Refusing, before training and by name, optimizers that a training step cannot run."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NoReturn

import jax
import optax

from medjax.config import Options

__all__ = ["as_transformation", "check_known", "refuse"]

_LINE_SEARCH = (
    "a line search, which evaluates the loss of a batch many times; use "
    "optax.lbfgs(learning_rate, linesearch=None), or optax.polyak_sgd"
)
_REFUSED = {
    "LookaheadState": (
        "optax.lookahead, whose parameters are a pair of copies (LookaheadParams); use the "
        "optimizer inside it, or optax.contrib.schedule_free"
    ),
    "ScaleByZoomLinesearchState": f"optax.scale_by_zoom_linesearch, {_LINE_SEARCH}",
    "ScaleByBacktrackingLinesearchState": (
        f"optax.scale_by_backtracking_linesearch, {_LINE_SEARCH}"
    ),
    "HutchinsonState": (
        "optax.contrib.hutchinson_estimator_diag_hessian (the default of optax.contrib.sophia), "
        "which evaluates the loss of a batch a second time; use optax.adamw or optax.lion"
    ),
    "DifferentiallyPrivateAggregateState": (
        "optax.contrib.differentially_private_aggregate (optax.contrib.dpsgd), which needs the "
        "gradient of every row; medjax computes only that of the batch, and cannot train privately"
    ),
}


def check_known(state: Any, options: Options) -> None:
    """Refuse optimizers of optax that are known not to run in a training step.

    Parameters
    ----------
    state : pytree
        State of the component's optimizer, by which optimizers are recognised.
    options : Options
        `max_grad_norm` and `weight_decay` cannot be combined with `optax.MultiSteps`.

    Raises
    ------
    ValueError
        If the optimizer is one of them; the message says what to use instead.
    """
    for node in _nodes(state):
        name = type(node).__name__
        if name in _REFUSED:
            raise ValueError(f"component.configure_optimizer returned {_REFUSED[name]}")
        if name == "SAMState" and node.cache is None:
            msg = (
                "component.configure_optimizer returned optax.contrib.sam in opaque mode, which "
                "evaluates the gradients of a batch a second time; use opaque_mode=False"
            )
            raise ValueError(msg)
        if name == "MultiStepsState" and (options.max_grad_norm or options.weight_decay):
            msg = (
                "component.configure_optimizer returned optax.MultiSteps, and Options.max_grad_norm"
                " or weight_decay is set, which would act on each batch and not on each update; "
                "use TrainerConfig.gradient_accumulation_steps instead of MultiSteps, or clip and "
                "decay in the optimizer inside it"
            )
            raise ValueError(msg)


def _nodes(tree: Any) -> Iterator[Any]:
    """Yield all states of optax optimizers in a tree, at any depth."""
    if type(tree).__module__.startswith("optax"):
        yield tree
    inner = jax.tree.leaves(tree, is_leaf=lambda node: node is not tree)
    for node in inner:
        if node is not tree:
            yield from _nodes(node)


def as_transformation(returned: Any) -> optax.GradientTransformationExtraArgs:
    """Check what `configure_optimizer` returned, and return it as a transformation.

    Raises
    ------
    ValueError
        If it is not a transformation.

    Examples
    --------
    >>> as_transformation("adamw")
    Traceback (most recent call last):
    ValueError: component.configure_optimizer returned 'adamw'; expected an \
optax.GradientTransformation such as optax.adamw(learning_rate)
    """
    if isinstance(returned, optax.MultiSteps):
        returned = returned.gradient_transformation()
    functions = getattr(returned, "init", None), getattr(returned, "update", None)
    if not all(map(callable, functions)):
        msg = (
            f"component.configure_optimizer returned {returned!r}; expected an "
            "optax.GradientTransformation such as optax.adamw(learning_rate)"
        )
        raise ValueError(msg)
    return optax.with_extra_args_support(returned)


def refuse(error: Exception) -> NoReturn:
    """Raise a ValueError for an optimizer that raised `error` when it was traced."""
    if isinstance(error, jax.errors.JAXTypeError):
        msg = (
            "component.configure_optimizer uses the value of the learning rate, which is traced so "
            "that it can change; use it only in arithmetic, and pass a schedule that needs its "
            "value, such as optax.warmup_cosine_decay_schedule, to train(schedule=...)"
        )
        raise ValueError(msg) from error
    reason = str(error).partition("\n")[0]
    msg = (
        f"the optimizer of component.configure_optimizer cannot be run: {type(error).__name__}: "
        f"{reason}. A step calls update(gradients, state, params), and passes the loss of the batch"
        " as value= if that is accepted; use an optimizer that needs no more"
    )
    raise ValueError(msg) from error
