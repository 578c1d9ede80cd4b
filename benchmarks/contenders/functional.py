"""medjax with its Flax encoder, and a bare loop of its jitted step, which is the lower bound."""

from __future__ import annotations

import time
from typing import Any

import jax

import medjax
from contenders.work import Clock, Work, padding
from medjax.components import TokenClassification


def train(work: Work, clock: Clock) -> dict[str, Any]:
    """Train medjax's token classifier with `medjax.train` or with a loop of its steps."""
    tagger = TokenClassification.from_pretrained(
        work.model, work.labels, max_length=work.max_length
    )
    options = medjax.Options(cache_preprocessed=True, precision=work.precision)
    config = medjax.TrainerConfig(
        str(work.output),
        work.learning_rate,
        work.epochs,
        batch_size=work.batch_size,
        seed=work.seed,
    )
    mesh = medjax.make_mesh()
    loader = medjax.get_dataloader(
        work.train, tagger.component, config, shuffle=True, seed=work.seed, options=options,
        mesh=mesh,
    )  # fmt: skip
    if work.name == "medjax":
        compilations = _medjax(work, clock, tagger, config, options)
    else:
        with medjax.keep_memory():  # as `train` does
            compilations = _bare(work, clock, tagger, config, options, loader)
    sizes = (
        (*batch.device["input_ids"].shape, batch.host["attention_mask"].sum(1))
        for batch in loader.batches(work.epochs)
    )
    return {**padding(sizes), "compilations": compilations}


def _medjax(work: Work, clock: Clock, tagger: Any, config: Any, options: Any) -> int:
    class Epochs(medjax.TrainerCallback):
        def on_epoch_end(self, metrics: Any) -> None:
            clock.epoch(metrics["eval"])

    result = medjax.train(
        tagger.component,
        config,
        work.train,
        work.test,
        metrics_computer=medjax.SpanMetrics(tagger.tags),
        options=options,
        callback=Epochs(),
    )
    return result.nb_compilations


def _bare(work: Work, clock: Clock, tagger: Any, config: Any, options: Any, loader: Any) -> int:
    """Loop over batches prepared beforehand, without callbacks or checkpoints."""
    mesh, component = medjax.make_mesh(), tagger.component
    state = medjax.create_state_on(
        mesh,
        component,
        medjax.make_optimizer(component, options),
        seed=work.seed,
        learning_rate=work.learning_rate,
    )
    step = medjax.make_train_step(state, options=options, mesh=mesh)
    evaluate = medjax.make_eval_step(
        component.forward, options=options, mesh=mesh, with_outputs=True
    )
    metrics = medjax.SpanMetrics(tagger.tags)
    test = medjax.get_dataloader(work.test, component, config, shuffle=False, options=options)
    epochs = [list(loader.batches(epoch + 1)) for epoch in range(work.epochs)]
    tests = list(test.batches(0))
    clock.marks[0] = time.perf_counter()  # preparing the batches is not measured
    for batches in epochs:
        for batch in batches:
            state, _ = step(state, batch.device)
        outputs = [evaluate(state.variables, batch.device)[1]["predictions"] for batch in tests]
        columns: dict[str, list[Any]] = {}
        for batch, predictions in zip(tests, jax.device_get(outputs), strict=True):
            rows, length = batch.host["labels"].shape
            kept = metrics.prepare_batch({"predictions": predictions[:rows, :length]}, batch.host)
            for name, column in kept.items():
                columns.setdefault(name, []).extend(column)
        clock.epoch(metrics.compute(columns))
    return step.nb_compilations + evaluate.nb_compilations
