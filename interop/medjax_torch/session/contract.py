"""Checks before training starts, so that mistakes are reported in time."""

from __future__ import annotations

import copy
import dataclasses
import logging
from collections.abc import Collection, Mapping
from typing import Any

import optax
import torch
from torch import Tensor, nn

from medjax.loop.contract import check_metric_names, check_metrics_computer, refuse
from medjax.loop.directions import warn_of_direction
from medjax_torch.batches import first_batch, rebuilt
from medjax_torch.component_state import find, swapped
from medjax_torch.graph import host_random
from medjax_torch.optimizers.schedulers import metric_missing
from medjax_torch.options import Options
from medjax_torch.session.trainer_protocol import TrainerProtocol
from medjax_torch.torch_internals import pytree
from medjax_torch.trainer_config import TrainerConfig

logger = logging.getLogger("medjax")

_METHODS = ("configure_optimizer", "preprocess", "collate", "forward", "save", "load")


def check_arguments(
    component: Any, config: Any, metrics_computer: Any, lr_scheduler_builder: Any, options: Any
) -> None:
    """Check the arguments of a `Trainer`.

    Raises
    ------
    ValueError
        If one is invalid; the message names the argument, its value and what was expected.
    """
    missing = [name for name in (*_METHODS, "device") if not hasattr(component, name)]
    if isinstance(component, type):
        msg = f"component is the class {component.__name__}; expected an instance of it"
        raise ValueError(msg)
    if missing:
        expected = f"an object with the methods and attributes {', '.join((*_METHODS, 'device'))}"
        if isinstance(component, nn.Module):
            expected += "; write a class that wraps the module and provides them"
        refuse("component", component, f"{expected}; it has no {', '.join(missing)}")
    fields = [field.name for field in dataclasses.fields(TrainerConfig)]
    if not all(hasattr(config, name) for name in fields):
        refuse("config", config, "a TrainerConfig")
    if options is not None and not isinstance(options, Options):
        refuse("options", options, "a medjax_torch.Options")
    check_metrics_computer(metrics_computer)
    if isinstance(lr_scheduler_builder, torch.optim.lr_scheduler.LRScheduler):
        name = type(lr_scheduler_builder).__name__
        expected = f"a function of the optimizer: lambda optimizer: {name}(optimizer, ...)"
        refuse("lr_scheduler_builder", lr_scheduler_builder, expected)


def check_optimizer(optimizer: Any) -> None:
    """Check that a component configured an optimizer.

    Raises
    ------
    ValueError
        If it did not; the message says what it returned.
    """
    if not isinstance(optimizer, torch.optim.Optimizer | optax.GradientTransformation):
        expected = "a torch.optim.Optimizer of its parameters, or an optax.GradientTransformation"
        refuse("the result of component.configure_optimizer", optimizer, expected)


def warn_of_gradients(optimizer: Any) -> None:
    """Warn if parameters have gradients already, which medkit's first update would contain."""
    groups = optimizer.param_groups if isinstance(optimizer, torch.optim.Optimizer) else []
    parameters = [parameter for group in groups for parameter in group["params"]]
    gradients = [each.grad for each in parameters if each.grad is not None]
    if any(gradient.count_nonzero() for gradient in gradients if not gradient.is_sparse):
        logger.warning(
            "%d of %d parameters have gradients from before training. medkit adds them to those of "
            "the first batch; here they are left out. Call optimizer.zero_grad() after a backward "
            "pass of your own",
            len(gradients),
            len(parameters),
        )


def warn_of_same_draws(seed: int, earlier: Collection[int]) -> None:
    """Warn if a run draws what an earlier run of the same trainer has drawn.

    Parameters
    ----------
    seed : int
        The seed of a run that begins.
    earlier : collection of int
        The seeds of the earlier runs.
    """
    if seed in earlier:
        logger.warning(
            "this Trainer has already trained with seed %d. The order of the data and the dropout "
            "masks follow from the seed and the epoch, so this run draws the same ones again. For "
            "others, set trainer.config = dataclasses.replace(trainer.config, seed=...), or train "
            "all epochs in one run",
            seed,
        )


def check_result(result: Any) -> tuple[Any, Any]:
    """Check that forward returned outputs and a loss, and return both.

    Raises
    ------
    ValueError
        If it did not; the message says what it returned and what was expected.
    """
    if not isinstance(result, tuple | list) or len(result) != 2:
        is_several = isinstance(result, tuple | list)
        returned = f"{len(result)} values" if is_several else _described(result)
        msg = (
            f"component.forward returned {returned}; expected two values: the outputs, a "
            "BatchData, and the loss, a tensor with one element"
        )
        raise ValueError(msg)
    outputs, loss = result
    if not isinstance(outputs, Mapping):
        msg = (
            f"component.forward returned {_described(outputs)} as outputs; expected a BatchData or "
            "a dict, such as BatchData(logits=logits)"
        )
        raise ValueError(msg)
    if loss is None:
        raise ValueError("The component did not return a 'loss' from the input.")
    return outputs, loss


def _described(value: Any) -> str:
    if isinstance(value, Tensor):
        return f"a tensor of shape {tuple(value.shape)}"
    return f"a {type(value).__name__}"


def check_metrics(trainer: TrainerProtocol) -> None:
    """Check that evaluation will compute the metrics named in the configuration.

    One batch of the evaluation data is computed by torch and passed to the metrics computer.
    Error messages start with medkit's own.

    Parameters
    ----------
    trainer : TrainerProtocol
        A trainer ready to train.

    Raises
    ------
    ValueError
        If a metric is missing; the message names it, the field that needs it and a similar name.
    """
    config = trainer.config
    wanted = {
        f"Checkpoint metric '{config.checkpoint_metric}' not found": (
            config.checkpoint_metric,
            "TrainerConfig.checkpoint_metric",
        )
    }
    plateau = torch.optim.lr_scheduler.ReduceLROnPlateau
    if trainer.schedule.needs_metric or isinstance(trainer.lr_scheduler, plateau):
        metric = config.metric_to_track_lr
        wanted[metric_missing(metric)] = metric, "TrainerConfig.metric_to_track_lr"
    if isinstance(trainer.lr_scheduler, plateau):
        is_minimized = trainer.lr_scheduler.mode == "min"
        other = f"ReduceLROnPlateau(mode={'max' if is_minimized else 'min'!r})"
        warn_of_direction("metric_to_track_lr", config.metric_to_track_lr, is_minimized, other)
    scores = _sample_scores(trainer) if any(name != "loss" for name, _ in wanted.values()) else {}
    for medkits_message, (name, field) in wanted.items() if scores is not None else ():
        try:
            check_metric_names({name: field}, scores or {})
        except ValueError as error:
            raise ValueError(f"{medkits_message}: {error}") from None


def _sample_scores(trainer: TrainerProtocol) -> dict[str, Any] | None:
    """Return the scores of a batch, {} without a metrics computer, or None if they are unknown."""
    if trainer.metrics_computer is None:
        return {}
    batch: Any = first_batch(trainer.eval_dataloader)
    # Forward may write to the batch, which may hold tensors of the dataset.
    batch = rebuilt(batch, pytree.tree_map_only(torch.Tensor, torch.clone, dict(batch)))
    inventory = find(trainer.component)
    # Forward may write to buffers, as a batch norm does that is left in training mode.
    clones = {
        name: tensor.detach().clone().requires_grad_(tensor.requires_grad and tensor.is_leaf)
        for name, tensor in inventory.tensors.items()
    }
    generators = host_random.watched(inventory.content.generators)
    with generators, swapped(inventory, clones), torch.no_grad():
        outputs, _ = trainer.make_forward_pass(batch, eval_mode=True)
    try:
        computer = copy.deepcopy(trainer.metrics_computer)
        kept = computer.prepare_batch(outputs, batch)
        return dict(computer.compute({name: list(values) for name, values in kept.items()}))
    except Exception:  # the user's code may not work on as few items
        return None
