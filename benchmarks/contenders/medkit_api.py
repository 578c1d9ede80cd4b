"""medkit's own trainer, and medjax_torch with the same component, data and metrics."""

from __future__ import annotations

import importlib
from typing import Any

import torch
from medkit.text.metrics.ner import SeqEvalMetricsComputer
from medkit.text.ner.hf_entity_matcher import HFEntityMatcher
from medkit_ner import MedkitDocuments

from contenders.work import Clock, Work, padding
from medjax.models import resolve_model


def train(work: Work, clock: Clock) -> dict[str, Any]:
    """Train medkit's entity matcher."""
    ours = work.name.startswith("medjax_torch")
    training = importlib.import_module("medjax_torch" if ours else "medkit.training")
    torch.manual_seed(work.seed)
    component = HFEntityMatcher.make_trainable(
        str(resolve_model(work.model)),
        labels=work.labels,
        tagging_scheme="iob2",
        tag_subtokens=False,
        tokenizer_max_length=work.max_length,
    )

    class Epochs(training.DefaultPrinterCallback):
        def on_epoch_end(self, metrics: Any, **_: Any) -> None:
            clock.epoch(metrics["eval"])

    config = training.TrainerConfig(
        output_dir=work.output,
        learning_rate=work.learning_rate,
        nb_training_epochs=work.epochs,
        batch_size=work.batch_size,
        seed=work.seed,
    )
    beyond_medkit = {}
    if ours:
        window = 100 if work.grouped else 0
        options = training.Options(length_window=window, precision=work.precision)
        beyond_medkit = {"options": options}
    trainer = training.Trainer(
        component,
        config,
        MedkitDocuments(work.train),
        MedkitDocuments(work.test),
        metrics_computer=SeqEvalMetricsComputer(component.id_to_label, tagging_scheme="iob2"),
        callback=Epochs(),
        **beyond_medkit,
    )
    trainer.train()
    ladder = trainer.prepare().lengths[True] if ours else ()
    facts = padding(_sizes(batch, ladder) for batch in trainer.train_dataloader)
    if ours:
        facts["compilations"] = trainer.conversion_cost.nb_compilations
    return facts


def _sizes(batch: Any, ladder: tuple[int, ...]) -> tuple[int, int, list[int]]:
    mask = batch["attention_mask"]
    rows, length = mask.shape
    return rows, next((rung for rung in ladder if rung >= length), length), mask.sum(1).tolist()
