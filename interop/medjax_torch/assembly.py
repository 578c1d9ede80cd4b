"""What a training step is assembled of: optimizer, schedule, record of the component, programs."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, NamedTuple

import jax
import optax
from jax.tree_util import tree_flatten_with_path

from medjax import sharding
from medjax.compiled import CompiledStep
from medjax.component import TrainableComponent
from medjax.loop.kept import kept_optimizer, layout_of, traced
from medjax.loop.plan import Plan
from medjax.loop.start import warmup_steps, with_kept_rate
from medjax.reads import reads
from medjax.schedules import Schedule, constant, with_warmup
from medjax.state import TrainState, create_state, create_state_on
from medjax.step import make_train_step
from medjax_torch.modules import check_reachable
from medjax_torch.optimizers.link import OptimizerLink
from medjax_torch.optimizers.schedules import check_rates
from medjax_torch.preparation import Preparation


class Parts(NamedTuple):
    """What a state and its step are made with.

    Attributes
    ----------
    link : OptimizerLink or None
        The torch optimizer; None for one of optax.
    component : TrainableComponent
        The component's record, with its optimizer.
    schedule : Schedule
        Gives the learning rate.
    """

    link: OptimizerLink | None
    component: TrainableComponent
    schedule: Schedule


class Assembly:
    """Assembles the parts of a step from a trainer, as often as what they depend on changes.

    Parameters
    ----------
    trainer : Trainer
        Gives optimizer, schedule and options.
    preparation : Preparation
        Of its component.
    plan : Plan
        For the warm-up.

    Raises
    ------
    ValueError
        If a warm-up or a schedule has no rate to scale.
    """

    def __init__(self, trainer: Any, preparation: Preparation, plan: Plan) -> None:
        self._trainer = trainer
        self._preparation = preparation
        self._warmup = warmup_steps(trainer.options, plan)
        is_scheduled = trainer.lr_scheduler is None and trainer.schedule != constant()
        check_rates(trainer.optimizer, warmup_steps=self._warmup, is_scheduled=is_scheduled)

    def parts(self) -> Parts:
        """Return the parts that fit the component and its optimizer as they are now.

        Raises
        ------
        ValueError
            If the optimizer holds a parameter that is not the component's.
        """
        trainer = self._trainer
        link = self._link()

        def configure_optimizer(learning_rate: Any) -> optax.GradientTransformation:
            return trainer.optimizer if link is None else link.configure(learning_rate)

        rule = trainer.optimizer if link is None else link.rule
        component = self._preparation.trainable(rule, configure_optimizer)
        schedule = with_warmup(with_kept_rate(component, trainer.schedule), self._warmup)
        if link is not None:
            first_rate = link.learning_rate
            # torch's optimizer and scheduler hold the rate.
            schedule = schedule._replace(
                init=lambda rate: trainer.schedule.init(first_rate), resume=lambda saved: saved
            )
        return Parts(link, component, schedule)

    def step(self, parts: Parts, state: TrainState) -> CompiledStep:
        """Return the training step for a state, the one before if nothing has changed."""
        trainer, preparation = self._trainer, self._preparation
        config, options = trainer.config, trainer.options
        accumulation = config.gradient_accumulation_steps
        with_outputs = trainer.metrics_computer is not None and config.do_metrics_in_training

        def make() -> CompiledStep:
            made = make_train_step(
                state,
                schedule=parts.schedule,
                options=preparation.step_options,
                accumulation=accumulation,
                mesh=preparation.mesh,
                with_outputs=with_outputs,
                differentiate=preparation.converted.differentiate(options),
            )
            preparation.steps.append(made)
            return made

        rate = reads(trainer.schedule.rate)
        sometimes = preparation.converted.sometimes
        chosen = traced(options), rate, self._warmup, accumulation, with_outputs
        settings = (*chosen, sometimes, layout_of(state))
        step: CompiledStep = parts.component.kept("steps", settings, make)
        return step

    def carried(self, parts: Parts, old: TrainState, replaced: Collection[str]) -> TrainState:
        """Return a state that fits `parts` and holds what `old` holds.

        What `old` lacks comes from the component and from the torch optimizer, and so do the
        variables named by `replaced`.
        """
        trainer, mesh = self._trainer, self._preparation.mesh
        optimizer = kept_optimizer(parts.component, trainer.options)
        made: dict[str, Any] = {
            "component": parts.component,
            "optimizer": optimizer,
            "seed": 0,
            "learning_rate": float(old.learning_rate),
            "accumulates": trainer.config.gradient_accumulation_steps > 1,
        }
        if mesh.size == 1:
            fresh = create_state(**made)
            fresh = sharding.put(fresh, sharding.state_shardings(fresh, mesh))
        else:
            fresh = create_state_on(mesh, **made)
        if parts.link is not None:
            fresh = parts.link.adopt(fresh)
        held = {_name(path): leaf for path, leaf in tree_flatten_with_path(old)[0]}
        for name in replaced:
            held.pop(_VARIABLE + name, None)
        leaves, structure = tree_flatten_with_path(fresh)
        state: TrainState = jax.tree.unflatten(
            structure, [_same_kind(held.get(_name(path)), leaf) for path, leaf in leaves]
        )
        if parts.link is not None:
            state = parts.link.pushed(state)
        return state.holding(parts.component.forward, optimizer)

    def _link(self) -> OptimizerLink | None:
        """Return the link to a torch optimizer, None if the component made one of optax."""
        optimizer, converted = self._trainer.optimizer, self._preparation.converted
        if isinstance(optimizer, optax.GradientTransformation):
            return None
        check_reachable(converted.found, optimizer)
        names = {tensor: name for name, tensor in converted.found.parameters.items()}
        frozen = converted.found.parameters.keys() - set(converted.trained)
        absent = frozen | converted.without_gradient
        return OptimizerLink(optimizer, names, absent, converted.sometimes)


_COLLECTIONS = ("params", "frozen", "buffers")
_VARIABLE = "variable "


def _name(path: tuple[Any, ...]) -> str:
    """Return what to call a leaf of a state: a variable alike in every collection it may be in."""
    keys = [
        str(getattr(key, "key", getattr(key, "name", getattr(key, "idx", key)))) for key in path
    ]
    if keys[0] in ("params", "collections") and len(keys) > 1:
        while keys[0] in ("collections", *_COLLECTIONS):
            keys = keys[1:]
        return _VARIABLE + ".".join(keys)
    return "/".join(keys)


def _same_kind(old: Any, new: Any) -> Any:
    """Return the old leaf, laid out like the new one, if there is one of its shape and type."""
    if old is None or old.shape != new.shape or old.dtype != new.dtype:
        return new
    return old if old.sharding == new.sharding else sharding.put(old, new.sharding)
