"""medjax with its Flax encoder, and a bare loop of its jitted step over prepared batches."""

from __future__ import annotations

import tempfile
import time
from typing import Any

import jax
import numpy as np
from overhead import Durations

import medjax
from medjax.components import TokenClassification
from medjax.models import BertConfig, TokenClassifier
from on_device.work import LABELS, Work


def train(name: str, work: Work) -> list[float]:
    """Return the seconds of each epoch of `medjax.train` or of a loop of its steps."""
    attention = "cudnn" if work.option == "cudnn" else "xla"
    model = TokenClassifier(BertConfig(**work.sizes), LABELS, attention_implementation=attention)
    tags = ("O", *(f"B-{number}" for number in range(1, LABELS)))
    tagger = TokenClassification(model, None, tags)  # type: ignore[arg-type]
    component = tagger.component._replace(
        expand=None,
        preprocess=lambda item: item,
        collate=collate,
        save=lambda path, variables: None,
        load=lambda path: {},
    )
    options = medjax.Options(
        precision=work.precision,  # type: ignore[arg-type]
        compilation_cache=None,
        deterministic=False,  # nor is torch
    )
    if name == "medjax":
        return _medjax(work, component, options)
    with medjax.keep_memory():  # as `medjax.train` does
        return _bare(work, component, options)


def collate(rows: Any) -> medjax.BatchData:
    """Stack rows of one length."""
    return medjax.BatchData({name: np.stack([row[name] for row in rows]) for name in rows[0]})


def _medjax(work: Work, component: Any, options: Any) -> list[float]:
    durations = Durations()
    with tempfile.TemporaryDirectory() as folder:
        config = medjax.TrainerConfig(
            folder,
            1e-4,
            work.epochs + 1,  # the last epoch also saves, and is left out
            batch_size=work.rows,
            seed=0,
            checkpoint_period=0,
        )
        medjax.train(component, config, work.items(), options=options, callback=durations)
    return durations.seconds[:-1]


def _bare(work: Work, component: Any, options: Any) -> list[float]:
    mesh = medjax.make_mesh()
    optimizer = medjax.make_optimizer(component, options)
    state = medjax.create_state_on(mesh, component, optimizer, seed=0, learning_rate=1e-4)
    step = medjax.make_train_step(state, options=options, mesh=mesh)
    config = medjax.TrainerConfig("unused", batch_size=work.rows)
    loader = medjax.get_dataloader(
        work.items(), component, config, shuffle=False, options=options, mesh=mesh
    )
    batches = [batch.device for batch in loader.batches(1)]
    seconds = []
    for _ in range(work.epochs):
        began = time.perf_counter()
        for batch in batches:
            state, _ = step(state, batch)
        jax.block_until_ready(state)
        seconds.append(time.perf_counter() - began)
    return seconds
