"""Train a component as the examples do, by the arguments of a command line."""

from __future__ import annotations

import argparse
import importlib.util
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import optax

from medjax.callbacks import (
    DefaultPrinterCallback,
    ReportWriter,
    TrainerCallback,
    write_report,
)
from medjax.callbacks.plots import plot_history
from medjax.cli.arguments import cache_of
from medjax.cli.reading import check_annotated, read_annotated, unit_of
from medjax.cli.tasks import DEFAULTS, MODEL, Task
from medjax.component import Variables
from medjax.components import (
    ReadyComponent,
    RelationClassification,
    TextClassification,
    TokenClassification,
)
from medjax.config import Options, TrainerConfig
from medjax.loop import TrainResult, train
from medjax.metrics import (
    ClassificationMetrics,
    MetricsComputer,
    RelationMetrics,
    SpanMetrics,
    choose_thresholds,
)
from medjax.recipes import (
    Parts,
    Report,
    check_test,
    evaluated,
    keep_split,
    locate_parts,
    report_entities,
    report_relations,
    report_texts,
    split_parts,
)
from medjax.text import relation_kinds

__all__ = ["Trained", "train_model"]


class Trained(NamedTuple):
    """What the command has done.

    Attributes
    ----------
    result : TrainResult
        Of the run.
    text : str
        The report, as it is in ``report.txt``.
    """

    result: TrainResult
    text: str


class _Recipe(NamedTuple):
    """How a task is trained and reported on.

    `tuned` returns the component as it is saved, which `report` scores on test.
    """

    component: ReadyComponent
    metrics: MetricsComputer
    checkpoint_metric: str
    tuned: Callable[[Variables, dict[str, Any]], ReadyComponent]
    report: Callable[[Any, Variables, dict[str, Any]], Report]


def train_model(arguments: argparse.Namespace) -> Trained:
    """Train a component, choose the best epoch on devel and report on test.

    Parameters
    ----------
    arguments : argparse.Namespace
        Those of ``python -m medjax train``.

    Raises
    ------
    ValueError
        If the data, the model or a setting cannot be used.
    CheckpointError
        If a checkpoint cannot be saved or resumed from.
    """
    parts = _parts(arguments)
    recipe = _RECIPES[arguments.task](parts, arguments)
    check_test(recipe.component, parts.test)
    options = _options(recipe, arguments)
    page = _page(recipe, arguments)
    has_plots = importlib.util.find_spec("matplotlib") is not None
    callbacks: list[TrainerCallback] = [DefaultPrinterCallback()]
    if has_plots:
        callbacks.append(ReportWriter(arguments.output, options, **page))
    config = _config(recipe, arguments)
    keep_split(parts, arguments.seed, arguments.output, resume=arguments.resume)
    result = _train(recipe, parts, config, options, callbacks, resume=arguments.resume)
    chosen = result.best_checkpoint or result.last_checkpoint
    assert chosen is not None  # a run ends with a checkpoint
    variables = recipe.component.load(chosen)
    evaluation = {
        "batch_size": arguments.batch_size,
        "options": Options(precision=options.precision),
    }
    component = recipe.tuned(variables, evaluation)
    component.save(arguments.output / MODEL, variables)  # before anything else can go wrong
    report = recipe.report(component, variables, evaluation)
    text = f"Test: {report.text}"
    if has_plots:
        curves = arguments.output / "learning_curves.png"
        plot_history(result.history, curves, metrics=page["metrics"])
        write_report(
            arguments.output / "report.html",
            result.history,
            config,
            options,
            tables=report.tables,
            confusion=report.confusion,
            **page,
        )
    (arguments.output / "report.txt").write_text(f"{text}\n", encoding="utf-8")
    return Trained(result, text)


def _parts(arguments: argparse.Namespace) -> Parts:
    read = [
        read_annotated(path, arguments.task, arguments) for path in locate_parts(arguments.data)
    ]
    parts = split_parts(read, arguments.seed)
    for name, part in parts._asdict().items():
        check_annotated(f"--data: {name}", arguments.task, part)
    print(f"{' / '.join(str(len(part)) for part in parts)} to train, choose and report on")
    return parts


def _options(recipe: _Recipe, arguments: argparse.Namespace) -> Options:
    # Where pairs without a relation are drawn, they are others in each epoch.
    draws_anew = getattr(recipe.component, "negatives", None) is not None
    return Options(
        weight_decay=arguments.weight_decay,
        max_grad_norm=1.0,
        warmup_steps=arguments.warmup,
        precision=arguments.precision,
        cache_preprocessed=not draws_anew,
        save_interval_steps=arguments.save_interval,
        compilation_cache=cache_of(arguments),
        log_dir=arguments.output,
    )


def _page(recipe: _Recipe, arguments: argparse.Namespace) -> dict[str, Any]:
    """Return what the pages during and after training have in common."""
    data = " ".join(map(str, arguments.data))
    return {
        "title": f"Training report: {arguments.task}",
        "metrics": ("loss", recipe.checkpoint_metric),
        "settings": {"model": arguments.model, "data": data},
    }


def _config(recipe: _Recipe, arguments: argparse.Namespace) -> TrainerConfig:
    usual = DEFAULTS[arguments.task]
    rate = usual.learning_rate if arguments.learning_rate is None else arguments.learning_rate
    return TrainerConfig(
        output_dir=arguments.output / "checkpoints",
        learning_rate=rate,
        nb_training_epochs=arguments.epochs or usual.nb_epochs,
        batch_size=arguments.batch_size,
        seed=arguments.seed,
        checkpoint_metric=recipe.checkpoint_metric,
        minimize_checkpoint_metric=False,
    )


def _train(
    recipe: _Recipe,
    parts: Parts,
    config: TrainerConfig,
    options: Options,
    callbacks: Sequence[TrainerCallback],
    *,
    resume: bool,
) -> TrainResult:
    nb_items = len(recipe.component.expand(parts.train))
    nb_updates = -(-nb_items // config.batch_size) * config.nb_training_epochs
    return train(
        recipe.component.component,
        config,
        parts.train,
        parts.devel,
        metrics_computer=recipe.metrics,
        schedule=optax.linear_schedule(config.learning_rate, 0, nb_updates),
        callback=callbacks,
        options=options,
        resume="auto" if resume else None,
    )


def _of_entities(parts: Parts, arguments: argparse.Namespace) -> _Recipe:
    labels = _labels(entity.label for document in parts.train for entity in document.entities)
    for name, documents in (("devel", parts.devel), ("test", parts.test)):
        found = {entity.label for document in documents for entity in document.entities}
        if unknown := sorted(found - set(labels)):
            print(f"{name} has labels that train lacks, which count as missed: {unknown}")
    tagger = TokenClassification.from_pretrained(
        arguments.model,
        labels,
        tagging_scheme=arguments.scheme,
        overlapping=arguments.overlapping,
        max_length=arguments.max_length,
        optimizer=optax.adam,
    )
    unit = unit_of(locate_parts(arguments.data)[-1], arguments)  # of the part to report on
    return _Recipe(
        tagger,
        SpanMetrics(tagger.tags),
        "micro_f1-score",
        lambda variables, how: tagger,
        lambda tagger, variables, how: report_entities(
            tagger, variables, parts.test, unit=unit, **how
        ),
    )


def _of_documents(parts: Parts, arguments: argparse.Namespace) -> _Recipe:
    is_multi_label = arguments.multi_label or arguments.separator is not None
    classifier = TextClassification.from_pretrained(
        arguments.model,
        _labels(label for text in parts.train for label in text.labels),
        problem_type="multi_label_classification"
        if is_multi_label
        else "single_label_classification",
        max_length=arguments.max_length,
        optimizer=optax.adam,
    )
    metrics = ClassificationMetrics(classifier.labels, multi_label=is_multi_label)

    def tuned(variables: Variables, how: dict[str, Any]) -> ReadyComponent:
        if not is_multi_label:
            return classifier
        # A threshold for each class, which is not to be chosen on test.
        _, columns = evaluated(classifier.component, variables, parts.devel, metrics, **how)
        return classifier.with_thresholds(choose_thresholds(columns, classifier.labels))

    return _Recipe(
        classifier,
        metrics,
        "macro_f1-score",
        tuned,
        lambda classifier, variables, how: report_texts(classifier, variables, parts.test, **how),
    )


def _of_relations(parts: Parts, arguments: argparse.Namespace) -> _Recipe:
    labels, kinds = relation_kinds(parts.train)
    classifier = RelationClassification.from_pretrained(
        arguments.model,
        labels,
        kinds,
        reach=arguments.reach,
        context=arguments.context,
        negatives=arguments.negatives if arguments.negatives >= 0 else None,
        max_length=arguments.max_length,
        optimizer=optax.adam,
    )
    return _Recipe(
        classifier,
        RelationMetrics(classifier.classes),
        "micro_f1-score",
        lambda variables, how: classifier,
        lambda classifier, variables, how: report_relations(
            classifier, variables, parts.test, **how
        ),
    )


def _labels(found: Any) -> Sequence[str]:
    labels = sorted(set(found))
    print(f"labels: {', '.join(labels)}")
    return labels


_RECIPES: dict[Task, Callable[[Parts, argparse.Namespace], _Recipe]] = {
    "entities": _of_entities,
    "documents": _of_documents,
    "relations": _of_relations,
}
