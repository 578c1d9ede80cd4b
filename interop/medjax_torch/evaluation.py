"""Evaluation through a Trainer, within its training or on its own."""

from __future__ import annotations

from typing import Any

import jax

from medjax import sharding
from medjax.callbacks import as_callback_list
from medjax.heap import keep_memory
from medjax.loop.epochs import evaluation_epoch
from medjax.scores import Scores
from medjax_torch.broken import check_evaluation
from medjax_torch.evaluation_state import WritingEvaluation
from medjax_torch.feed import Feed
from medjax_torch.run import TorchRun


def evaluate(trainer: Any, run: TorchRun | None, loader: Any) -> dict[str, float]:
    """Return loss and scores on the batches of `loader`.

    Parameters
    ----------
    trainer : Trainer
        Gives component, metrics computer and options.
    run : TorchRun or None
        The run in progress, whose state is evaluated; None for the weights of the component.
    loader : torch.utils.data.DataLoader
        Of collated batches.
    """
    if run is not None:
        return run.eval_here(loader)
    preparation = trainer.prepare()
    mesh, converted = preparation.mesh, preparation.converted
    variables = converted.variables()
    variables = sharding.put(variables, sharding.state_shardings(variables, mesh))
    scored = trainer.metrics_computer is not None
    step = WritingEvaluation(preparation.eval_step(with_outputs=scored))
    feed = Feed(loader, preparation, train=False)
    with keep_memory():
        metrics = evaluation_epoch(
            *(variables, feed, step),
            callback=as_callback_list(trainer.callback),
            scores=Scores(trainer.metrics_computer, preparation.unpad) if scored else None,
        )
        check_evaluation(converted, variables, metrics["loss"], feed.batches(epoch=0))
    if step.written:
        converted.write(jax.device_get(step.written))
    return metrics
