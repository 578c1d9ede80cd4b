"""Assembly of a training step from optimizer, schedule, component record and programs."""

from __future__ import annotations

from collections.abc import Collection
from typing import NamedTuple

import jax
import optax
from jax.tree_util import tree_flatten_with_path

from medjax import sharding
from medjax.component import TrainableComponent
from medjax.loop.initial import InitialState, weighs_updates
from medjax.loop.plan import Plan
from medjax.loop.program_cache import kept_optimizer, layout_of, traced
from medjax.loop.setup import warmup_steps, with_kept_rate
from medjax.runtime.reads import reads
from medjax.schedules import Schedule, constant, with_warmup
from medjax.state import TrainState
from medjax.step import TrainStep, make_train_step, make_train_steps
from medjax_torch.component_state.modules import check_reachable
from medjax_torch.conversion import BatchAdapter
from medjax_torch.optimizers.link import OptimizerLink
from medjax_torch.optimizers.schedule_builder import check_rates
from medjax_torch.session.trainer_protocol import TrainedParts


class Parts(NamedTuple):
    """The parts from which a state and its programs are made.

    Attributes
    ----------
    link : OptimizerLink or None
        The link to the torch optimizer; None for an optax optimizer.
    component : TrainableComponent
        The component's record, with its optimizer.
    schedule : Schedule
        The schedule of the learning rate.
    """

    link: OptimizerLink | None
    component: TrainableComponent
    schedule: Schedule


class Programs(NamedTuple):
    """The compiled programs of training.

    Attributes
    ----------
    one : TrainStep
        Trains on a batch.
    several : TrainStep
        Trains on several batches in one call.
    """

    one: TrainStep
    several: TrainStep


class Assembly:
    """Assembles the parts of a step, and does so again whenever something they depend on changes.

    Parameters
    ----------
    trainer : TrainedParts
        Provides optimizer, schedule and options.
    preparation : BatchAdapter
        Prepares the batches of its component.
    plan : Plan
        Determines the length of the warm-up.

    Raises
    ------
    ValueError
        If there is no rate that a warm-up or a schedule could scale.
    """

    def __init__(self, trainer: TrainedParts, preparation: BatchAdapter, plan: Plan) -> None:
        self._trainer = trainer
        self._preparation = preparation
        self._warmup = warmup_steps(trainer.options, plan)
        self._is_scheduled = trainer.lr_scheduler is None and trainer.schedule != constant()
        check_rates(
            trainer.optimizer,
            warmup_steps=self._warmup,
            weight_decay=trainer.options.weight_decay,
            is_scheduled=self._is_scheduled,
        )

    def parts(self) -> Parts:
        """Return the parts that fit the current component and its optimizer.

        Raises
        ------
        ValueError
            If the optimizer holds a parameter that is not part of the component.
        """
        trainer = self._trainer
        link = self._link()

        def configure_optimizer(
            learning_rate: optax.ScalarOrSchedule,
        ) -> optax.GradientTransformation:
            optimizer = trainer.optimizer if link is None else link.configure(learning_rate)
            assert isinstance(optimizer, optax.GradientTransformation)
            return optimizer

        rule = trainer.optimizer if link is None else link.rule
        component = self._preparation.trainable(rule, configure_optimizer)
        schedule = with_warmup(with_kept_rate(component, trainer.schedule), self._warmup)
        if link is not None:
            first_rate = link.learning_rate
            schedule = schedule._replace(init=lambda rate: trainer.schedule.init(first_rate))
            if link.holds_rate:
                # torch's optimizer and scheduler are resumed with it.
                schedule = schedule._replace(resume=lambda saved: saved)
        return Parts(link, component, schedule)

    def programs(self, parts: Parts, state: TrainState) -> Programs:
        """Return the programs that train a state; the former ones if nothing has changed."""
        trainer, preparation = self._trainer, self._preparation
        config, options = trainer.config, trainer.options
        accumulation = config.gradient_accumulation_steps
        with_outputs = trainer.metrics_computer is not None and config.do_metrics_in_training

        def make() -> Programs:
            differentiate = preparation.converted.differentiate(options)
            one = make_train_step(
                state,
                schedule=parts.schedule,
                options=preparation.step_options,
                accumulation=accumulation,
                mesh=preparation.mesh,
                with_outputs=with_outputs,
                differentiate=differentiate,
            )
            several = make_train_steps(
                state,
                schedule=parts.schedule,
                options=preparation.step_options,
                accumulation=accumulation,
                mesh=preparation.mesh,
                differentiate=differentiate,
            )
            preparation.steps += [one, several]
            return Programs(one, several)

        rate = reads(trainer.schedule.rate)
        sometimes = preparation.converted.sometimes
        chosen = traced(options), rate, self._warmup, accumulation, with_outputs
        settings = (*chosen, sometimes, layout_of(state))
        programs: Programs = parts.component.kept("steps", settings, make)
        return programs

    def carried(self, parts: Parts, old: TrainState, replaced: Collection[str]) -> TrainState:
        """Make a state that fits `parts` from the values in `old`.

        Values missing from `old`, and the variables named in `replaced`, come from the component
        and from the torch optimizer.
        """
        trainer, mesh = self._trainer, self._preparation.mesh
        initial = InitialState(
            component=parts.component,
            optimizer=kept_optimizer(parts.component, trainer.options),
            seed=0,
            learning_rate=float(old.learning_rate),
            accumulates=trainer.config.gradient_accumulation_steps > 1,
            weighs_updates=weighs_updates(trainer.options),
        )
        fresh = initial.create(mesh)
        if parts.link is not None:
            fresh = parts.link.adopt(fresh)
        values = {_name(path): leaf for path, leaf in tree_flatten_with_path(old)[0]}
        for name in replaced:
            values.pop(_VARIABLE + name, None)
        leaves, structure = tree_flatten_with_path(fresh)
        state: TrainState = jax.tree.unflatten(
            structure, [_same_kind(values.get(_name(path)), leaf) for path, leaf in leaves]
        )
        if parts.link is not None:
            state = parts.link.pushed(state)
        return initial.owned(state)

    def _link(self) -> OptimizerLink | None:
        """Return the link to a torch optimizer, or None if the optimizer is one of optax."""
        optimizer, converted = self._trainer.optimizer, self._preparation.converted
        if isinstance(optimizer, optax.GradientTransformation):
            return None
        check_reachable(converted.inventory, optimizer)
        names = {tensor: name for name, tensor in converted.inventory.parameters.items()}
        frozen = converted.inventory.parameters.keys() - set(converted.trained)
        absent = frozen | converted.without_gradient
        return OptimizerLink(
            optimizer,
            names,
            absent,
            converted.sometimes,
            weight_decay=self._trainer.options.weight_decay,
            holds_rate=not self._is_scheduled,
        )


_COLLECTIONS = ("params", "frozen", "buffers")
_VARIABLE = "variable "


def _name(path: tuple[object, ...]) -> str:
    """Return the name of a state's leaf; a variable has the same name in every collection."""
    keys = [
        str(getattr(key, "key", getattr(key, "name", getattr(key, "idx", key)))) for key in path
    ]
    if keys[0] in ("params", "collections") and len(keys) > 1:
        while keys[0] in ("collections", *_COLLECTIONS):
            keys = keys[1:]
        return _VARIABLE + ".".join(keys)
    return "/".join(keys)


def _same_kind(old: jax.Array | None, new: jax.Array) -> jax.Array:
    """Return the old leaf, laid out like the new one, if it has the same shape and type."""
    if old is None or old.shape != new.shape or old.dtype != new.dtype:
        return new
    return old if old.sharding == new.sharding else sharding.put(old, new.sharding)
