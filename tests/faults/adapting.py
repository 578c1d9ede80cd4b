"""Train some weights of a tiny classifier of texts, in one process or in two."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import medjax
from medjax.components import Lora, TextClassification
from medjax.models import TEXT_CLASSIFICATION
from medjax.text import LabelledText

LABELS = ("no", "yes")
TEXTS = [
    LabelledText(
        f"{'chest pain' if n % 2 else 'no fever'} and {'cough ' * (n % 5)}", (LABELS[n % 2],)
    )
    for n in range(22)
]
TARGETS: dict[str, tuple[str, ...]] = {"lora": ("attention/query", "output"), "head": ()}
"""What is changed by low-rank matrices; the head is trained anyhow."""


def classifier(encoder: Path) -> TextClassification:
    return TextClassification.from_pretrained(encoder, LABELS)


def lora(encoder: Path, name: str) -> Lora:
    """Return a LoRA whose matrices are large enough to be split between processes."""
    return Lora(classifier(encoder).component, rank=64, targets=TARGETS[name])


def run(out: Path, encoder: Path, name: str, **more: Any) -> medjax.TrainResult:
    return medjax.train(
        lora(encoder, name).component,
        medjax.TrainerConfig(out, learning_rate=1e-2, nb_training_epochs=2, batch_size=8, seed=11),
        TEXTS,
        TEXTS[:7],
        options=medjax.Options(length_ladder=(16,)),
        callback=[],
        **more,
    )


def write_adapter(folder: Path, encoder: Path, result: medjax.TrainResult) -> None:
    adapter = lora(encoder, "lora").adapter(result.state.variables)
    adapter.write(folder, classifier(encoder).model.config, TEXT_CLASSIFICATION)
