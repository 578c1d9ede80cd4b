"""Optimizers that a training step cannot run, refused by name before training."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NoReturn

import jax
import optax

from medjax.config import Options

_LINE_SEARCH = (
    "a line search, which evaluates the loss of a batch again and again; use "
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
        "which evaluates the loss of a batch again; use optax.adamw or optax.lion"
    ),
    "DifferentiallyPrivateAggregateState": (
        "optax.contrib.differentially_private_aggregate (optax.contrib.dpsgd), which needs the "
        "gradient of every row; medjax has that of the batch, and no private training"
    ),
}


def check_known(state: Any, options: Options) -> None:
    """Refuse what is known not to run in a training step, by the states that optax makes.

    Parameters
    ----------
    state : pytree
        State of the component's optimizer.
    options : Options
        `max_grad_norm` and `weight_decay` go with every optimizer but one.

    Raises
    ------
    ValueError
        If there is something; it says what to use instead.
    """
    for node in _nodes(state):
        name = type(node).__name__
        if name in _REFUSED:
            raise ValueError(f"component.configure_optimizer returned {_REFUSED[name]}")
        if name == "SAMState" and node.cache is None:
            msg = (
                "component.configure_optimizer returned optax.contrib.sam in opaque mode, which "
                "evaluates the gradients of a batch again; use opaque_mode=False"
            )
            raise ValueError(msg)
        if name == "MultiStepsState" and (options.max_grad_norm or options.weight_decay):
            msg = (
                "component.configure_optimizer returned optax.MultiSteps, and Options.max_grad_norm"
                " or weight_decay is set, which would act on each batch and not on each update; "
                "use TrainerConfig.gradient_accumulation_steps in place of MultiSteps, or clip and "
                "decay in the optimizer inside it"
            )
            raise ValueError(msg)


def _nodes(tree: Any) -> Iterator[Any]:
    """Yield all states of optax in a tree, however deep."""
    if type(tree).__module__.startswith("optax"):
        yield tree
    inner = jax.tree.leaves(tree, is_leaf=lambda node: node is not tree)
    for node in inner:
        if node is not tree:
            yield from _nodes(node)


def as_transformation(found: Any) -> optax.GradientTransformationExtraArgs:
    """Return what `configure_optimizer` returned as a transformation, checked.

    Raises
    ------
    ValueError
        If it is none.
    """
    if isinstance(found, optax.MultiSteps):
        found = found.gradient_transformation()
    if not (callable(getattr(found, "init", None)) and callable(getattr(found, "update", None))):
        msg = (
            f"component.configure_optimizer returned {found!r}; expected an "
            "optax.GradientTransformation, as optax.adamw(learning_rate) is"
        )
        raise ValueError(msg)
    return optax.with_extra_args_support(found)


def refuse(error: Exception) -> NoReturn:
    """Raise the ValueError for an optimizer that raised `error` when it was tried."""
    if isinstance(error, jax.errors.JAXTypeError):
        msg = (
            "component.configure_optimizer looks at the value of the learning rate, which is traced"
            " so that it can change; use it in arithmetic only, and give a schedule that needs its "
            "value, such as optax.warmup_cosine_decay_schedule, to train(schedule=...)"
        )
        raise ValueError(msg) from error
    said = str(error).partition("\n")[0]
    msg = (
        f"the optimizer of component.configure_optimizer cannot be run: {type(error).__name__}: "
        f"{said}. A step calls update(gradients, state, params), with value= the loss of the batch "
        "where that is accepted; use an optimizer that needs no more"
    )
    raise ValueError(msg) from error
