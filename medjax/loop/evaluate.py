"""Evaluation on its own: trained weights on any dataset."""

from __future__ import annotations

import contextlib

from medjax import distributed, sharding
from medjax.component import TrainableComponent, Variables
from medjax.config import Options, TrainerConfig
from medjax.data import Dataset, get_dataloader
from medjax.heap import keep_memory
from medjax.loop.contract import check_arguments
from medjax.loop.epochs import evaluation_epoch
from medjax.metrics.computer import MetricsComputer
from medjax.scores import Scores, Unpadder
from medjax.step import make_eval_step


def evaluate(
    component: TrainableComponent,
    variables: Variables,
    config: TrainerConfig,
    data: Dataset,
    *,
    metrics_computer: MetricsComputer | None = None,
    callback: object = None,
    options: Options | None = None,
) -> dict[str, float]:
    """Return loss and scores of trained weights on a dataset, as `train` computes them.

    Parameters
    ----------
    component : TrainableComponent
        The component.
    variables : dict
        Its weights: ``result.state.variables``, or ``component.load(result.best_checkpoint)``.
    config : TrainerConfig
        For `batch_size` and `dataloader_nb_workers`.
    data : Dataset
        What to evaluate on.
    metrics_computer : MetricsComputer, optional
        Computes the scores.
    callback : TrainerCallback or sequence of them, optional
        Gets on_step_begin and on_step_end.
    options : Options, optional
        Precision, loss arithmetic and data options.

    Raises
    ------
    ValueError
        If the data is empty or cannot be batched.
    """
    check_arguments(component, config, options, metrics_computer)
    options = options or Options()
    mesh = sharding.make_mesh()
    variables = sharding.put(variables, sharding.state_shardings(variables, mesh))
    loader = get_dataloader(data, component, config, shuffle=False, options=options, mesh=mesh)
    scores = None
    if metrics_computer is not None:
        unpad = Unpadder(component.forward, variables, loader.ragged)
        scores = Scores(metrics_computer, unpad)
    eval_step = make_eval_step(
        component.forward,
        options=options,
        mesh=mesh,
        with_outputs=scores is not None,
    )
    with keep_memory(), distributed.Together(), contextlib.closing(loader):
        return evaluation_epoch(variables, loader, eval_step, callback=callback, scores=scores)
