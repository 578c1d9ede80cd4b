"""Evaluation on its own: trained weights on any dataset, as scores or as what they come from."""

from __future__ import annotations

import contextlib
import dataclasses

from medjax import distributed, sharding
from medjax.callbacks import as_callback_list
from medjax.component import TrainableComponent, Variables, count_parameters
from medjax.config import Options, TrainerConfig
from medjax.data import Dataset, expand, get_dataloader
from medjax.data.make import ladder_of
from medjax.loop.contract import check_arguments
from medjax.loop.epochs import Metrics, evaluation_epoch
from medjax.loop.padding_check import check_padding
from medjax.loop.request import RunRequest
from medjax.loop.scores import Columns, Scores, Unpadder, in_order
from medjax.loop.trial import check_labels
from medjax.metrics.computer import MetricsComputer
from medjax.runtime import keep_memory, telling
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
) -> Metrics:
    """Compute loss and scores of trained weights on a dataset, as `train` does.

    Parameters
    ----------
    component : TrainableComponent
        The component that was trained.
    variables : dict
        Its weights: ``result.state.variables``, or ``component.load(result.best_checkpoint)``.
    config : TrainerConfig
        For `batch_size` and `dataloader_nb_workers`.
    data : Dataset
        What to evaluate on.
    metrics_computer : MetricsComputer, optional
        Computes the scores.
    callback : TrainerCallback or sequence of them, optional
        Gets on_step_begin, on_step_end and on_wait.
    options : Options, optional
        Precision, loss arithmetic and data options.

    Raises
    ------
    ValueError
        If the data is empty or cannot be batched.
    """
    found, _ = evaluate_with_columns(
        component, variables, config, data, metrics_computer, callback, options
    )
    return found


def evaluation_columns(
    component: TrainableComponent,
    variables: Variables,
    config: TrainerConfig,
    data: Dataset,
    *,
    metrics_computer: MetricsComputer,
    callback: object = None,
    options: Options | None = None,
) -> Columns:
    """Return what the scores of `evaluate` are computed from, for `bootstrap` and for thresholds.

    Parameters
    ----------
    component, variables, config, data, callback, options
        As for `evaluate`.
    metrics_computer : MetricsComputer
        Its `prepare_batch` says what is kept of each batch.

    Returns
    -------
    dict of str to list
        The columns that ``metrics_computer.compute`` takes. An evaluation reads short items first;
        if one of the columns is ``"document"``, the rows are in the order of `data`.

    Raises
    ------
    ValueError
        If the data is empty or cannot be batched.

    Examples
    --------
    ::

        metrics = medjax.SpanMetrics(tagger.tags)
        columns = medjax.evaluation_columns(
            tagger.component, variables, config, documents, metrics_computer=metrics
        )
        print(medjax.bootstrap(metrics, columns)["micro_f1-score"])
    """
    _, columns = evaluate_with_columns(
        component, variables, config, data, metrics_computer, callback, options
    )
    return columns


def evaluate_with_columns(
    component: TrainableComponent,
    variables: Variables,
    config: TrainerConfig,
    data: Dataset,
    metrics_computer: MetricsComputer | None = None,
    callback: object = None,
    options: Options | None = None,
) -> tuple[Metrics, Columns]:
    """Return loss and scores, as `evaluate`, and what they come from, as `evaluation_columns`."""
    check_arguments(component, config, options, metrics_computer)
    request = RunRequest(
        component=component,
        config=config,
        options=options or Options(),
        mesh=sharding.make_mesh(),
        callback=as_callback_list(callback),
        metrics_computer=metrics_computer,
    )
    with (
        keep_memory(),
        distributed.Together(),
        contextlib.ExitStack() as at_end,
        telling(request.callback.on_wait),
    ):
        found, scores = _evaluate(request, variables, data, at_end)
    return found, {} if scores is None else in_order(scores.columns())


def _evaluate(
    request: RunRequest, variables: Variables, data: Dataset, at_end: contextlib.ExitStack
) -> tuple[Metrics, Scores | None]:
    component, options, mesh = request.component, request.options, request.mesh
    variables = sharding.put(variables, sharding.state_shardings(variables, mesh))
    once = dataclasses.replace(request.config, nb_training_epochs=1)
    data = expand(data, component, training=False)
    loader = get_dataloader(
        data,
        component,
        once,
        shuffle=False,
        options=options,
        mesh=mesh,
        nb_parameters=count_parameters(variables),
    )
    at_end.callback(loader.close)
    check_labels(component, data, ladder_of(options), options.padding)
    check_padding(request, variables, data, loader.lengths)
    scores = None
    if request.metrics_computer is not None:
        unpad = Unpadder(component.forward, variables, loader.ragged)
        scores = Scores(request.metrics_computer, unpad, strict=True)
    component.read_outside()  # may have changed since a jitted function within was traced
    eval_step = make_eval_step(
        component.forward, options=options, mesh=mesh, with_outputs=scores is not None
    )
    metrics = evaluation_epoch(
        variables, loader, eval_step, callback=request.callback, scores=scores
    )
    return metrics, scores
