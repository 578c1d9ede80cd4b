"""Attributes of a Trainer that a callback replaces while it trains."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from medjax_torch.session.trainer_protocol import TrainerProtocol

_ADVICE = {
    "component": "Write into the tensors of the first one",
    "optimizer": "Change its groups or its state, with add_param_group for parameters that are "
    "to be trained from now on, or replace it before train()",
    "train_dataloader": "Replace it before train(), which plans the run by its length",
    "metrics_computer": "Replace it before train(), or change the first one",
    "config": "Replace it before train()",
    "options": "Replace them before train()",
}

_OF_STEPS = {"lr_scheduler": "It is stepped with each update: replace it before train()"}


class Attributes:
    """What a run has taken from a Trainer at its beginning and cannot exchange.

    ``eval_dataloader`` and, with the interval "epoch", ``lr_scheduler`` may be replaced: they are
    looked up in each epoch.

    Parameters
    ----------
    trainer : TrainerProtocol
        The Trainer.
    """

    def __init__(self, trainer: TrainerProtocol) -> None:
        self._trainer = trainer
        by_step = trainer.options.lr_scheduler_interval == "step"
        self._advice: Mapping[str, str] = {**_ADVICE, **(_OF_STEPS if by_step else {})}
        self._first = {name: getattr(trainer, name) for name in self._advice}

    def check(self) -> None:
        """Check that the Trainer still has them.

        Raises
        ------
        ValueError
            If one was replaced; the message names it and says what to do.
        """
        for name, advice in self._advice.items():
            first, current = self._first[name], getattr(self._trainer, name)
            if current is first or (name in ("config", "options") and current == first):
                continue
            msg = (
                f"trainer.{name} was replaced during training by {_described(current)}; expected "
                f"the {type(first).__name__} with which training began. {advice}"
            )
            raise ValueError(msg)


def _described(value: Any) -> str:
    return "None" if value is None else f"another {type(value).__name__}"
