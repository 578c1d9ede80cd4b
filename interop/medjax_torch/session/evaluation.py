"""Evaluation by a Trainer that is not training."""

from __future__ import annotations

from typing import Any

import jax
from torch.utils.data import DataLoader

from medjax import sharding
from medjax.loop.epochs import Metrics, evaluation_epoch
from medjax.loop.scores import Scores
from medjax.runtime import keep_memory
from medjax_torch.session.broken_conditions import check_evaluation
from medjax_torch.session.evaluation_state import WritingEvaluation
from medjax_torch.session.feed import Feed
from medjax_torch.session.trainer_protocol import TrainerProtocol


def evaluate(trainer: TrainerProtocol, loader: DataLoader[Any]) -> Metrics:
    """Compute loss and scores of the component's current weights on the batches of a loader.

    Afterwards the component's tensors contain what forward wrote to them.

    Parameters
    ----------
    trainer : TrainerProtocol
        Provides component, metrics computer and options.
    loader : torch.utils.data.DataLoader
        Loader of collated batches.
    """
    preparation = trainer.prepare()
    mesh, converted = preparation.mesh, preparation.converted
    variables = converted.variables()
    variables = sharding.put(variables, sharding.state_shardings(variables, mesh))
    computer = trainer.metrics_computer
    step = WritingEvaluation(preparation.eval_step(with_outputs=computer is not None))
    feed = Feed(loader, preparation, train=False)
    with keep_memory():
        metrics = evaluation_epoch(
            variables,
            feed,
            step,
            callback=trainer.callback,
            scores=None if computer is None else Scores(computer, preparation.unpad),
        )
        check_evaluation(converted, variables, metrics["loss"], feed.batches(epoch=0))
    if step.written:
        converted.write(jax.device_get(step.written))
    return metrics
