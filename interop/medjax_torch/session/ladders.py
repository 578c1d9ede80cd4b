"""The lengths that a trainer's batches are padded to: set, fitted, or those of a checkpoint."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from jax.sharding import Mesh

from medjax.checkpoint.progress import read_progress
from medjax.data.fitting import Passes, ShapeCost, fit_lengths
from medjax.target import platform_of
from medjax_torch.batches import Fit, ladder_of_loader, lengths_of_loader
from medjax_torch.component_state import find
from medjax_torch.options import Options
from medjax_torch.session.trainer_protocol import TrainerProtocol
from medjax_torch.trainable_component import TrainableComponent
from medjax_torch.trainer_config import TrainerConfig

_CONVERTING = 2.0  # A shape is also traced and compared, which takes nearly as long.


def fit_of(
    component: TrainableComponent,
    config: TrainerConfig,
    options: Options,
    mesh: Mesh,
    *,
    train: bool,
) -> Fit:
    """Return a function that fits the lengths to pad to to a dataset.

    Parameters
    ----------
    component : TrainableComponent
        Its number of parameters decides what a shape costs.
    config : TrainerConfig
        For the number of epochs and the rows of a batch.
    options : Options
        For `length_window` and `precision`.
    mesh : jax.sharding.Mesh
        Where the component runs.
    train : bool
        Whether batches are trained on.
    """

    def fit(lengths: Sequence[int], nb_items: int) -> tuple[int, ...]:
        platform = platform_of(mesh)
        nb_parameters = sum(p.numel() for p in find(component).parameters.values())
        bfloat16 = options.precision == "bfloat16"
        cost = ShapeCost.of(platform, nb_parameters, train=train, bfloat16=bfloat16)
        passes = Passes(
            nb_items, config.nb_training_epochs, config.batch_size, options.length_window
        )
        cost = cost._replace(compile=_CONVERTING * cost.compile)
        return fit_lengths(lengths, passes, cost, platform)

    return fit


def lengths_of(trainer: TrainerProtocol) -> dict[bool, tuple[int, ...]]:
    """Return the lengths to pad to in training (True) and in evaluation."""
    ladder = trainer.options.length_ladder
    if ladder != "fitted":
        return {True: ladder, False: ladder}
    return {
        True: lengths_of_loader(trainer.train_dataloader, platform_of(trainer.mesh)),
        False: lengths_of_loader(trainer.eval_dataloader, platform_of(trainer.mesh)),
    }


def ladders_record(trainer: TrainerProtocol) -> dict[str, list[int]]:
    """Return the fitted lengths, ready for JSON; {} where they are set."""
    return {name: list(ladder.lengths) for name, ladder in _ladders(trainer).items()}


def restore_ladders(trainer: TrainerProtocol, record: Mapping[str, Any]) -> None:
    """Use the fitted lengths of a checkpoint's progress, if it has any.

    Raises
    ------
    CorruptCheckpointError
        If they are damaged.
    """
    saved = read_progress(record["progress"]).ladders
    for name, ladder in _ladders(trainer).items():
        if saved.get(name):
            ladder.restore(saved[name])


def _ladders(trainer: TrainerProtocol) -> dict[str, Any]:
    loaders = {"train": trainer.train_dataloader, "eval": trainer.eval_dataloader}
    ladders = {name: ladder_of_loader(loader) for name, loader in loaders.items()}
    return {name: ladder for name, ladder in ladders.items() if ladder is not None}
