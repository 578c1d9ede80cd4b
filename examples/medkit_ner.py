"""Train medkit's entity matcher with one import changed.

`medjax_torch.Trainer` replaces `medkit.training.Trainer` and trains medkit's own `HFEntityMatcher`,
which then loads the best checkpoint. ``--trainer medkit`` does the same with medkit's own trainer,
for comparison. Needs ``pip install "medjax[medkit]"``.
"""

from __future__ import annotations

import argparse
import importlib
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from clinical_ner import SENTENCES, SYNTHETIC, load_corpus
from medkit.core.text import Entity, Segment, Span, TextDocument
from medkit.text.metrics.ner import SeqEvalMetricsComputer
from medkit.text.ner.hf_entity_matcher import HFEntityMatcher

from medjax.models import resolve_model
from medjax.text import Document

MODULES = {"medjax": "medjax_torch", "medkit": "medkit.training"}


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    add = parser.add_argument
    add("--data", nargs="+", type=Path, default=[SYNTHETIC], help="folder with train, devel and "
        "test files, a BRAT folder, or 1 to 3 files in that order")  # fmt: skip
    add("--model", default="minilm", help="folder of a checkpoint, or a name")
    add("--output", type=Path, default=Path("runs/medkit_ner"), help="folder for the checkpoints")
    add("--trainer", choices=tuple(MODULES), default="medjax")
    add("--epochs", type=int, default=3)
    add("--batch-size", type=int, default=16)
    add("--learning-rate", type=float, default=1e-4)
    add("--seed", type=int, default=0)
    add("--max-length", type=int, default=128, help="maximum number of tokens in a sentence")
    add("--resume", action="store_true", help="continue from the last checkpoint (medjax)")
    add("--grouped", action="store_true", help="group batches by length (medjax)")
    add("--precision", choices=("float32", "bfloat16"), default="float32", help="(medjax)")
    return parser.parse_args(arguments)


class MedkitDocuments(torch.utils.data.Dataset):
    """Sentences as documents of medkit."""

    def __init__(self, documents: Sequence[Document]) -> None:
        self.documents = [_to_medkit(document) for document in documents]

    def __len__(self) -> int:
        return len(self.documents)

    def __getitem__(self, index: int) -> TextDocument:
        return self.documents[index]


def _to_medkit(document: Document) -> TextDocument:
    converted = TextDocument(text=document.text)
    for entity in document.entities:
        start, end = entity.start, entity.end
        converted.anns.add(
            Entity(label=entity.label, text=document.text[start:end], spans=[Span(start, end)])
        )
    return converted


def make_trainer(
    args: argparse.Namespace, component: Any, train: Sequence[Document], devel: Sequence[Document]
) -> Any:
    """Return the trainer that `args` names; both take the same arguments, except for options."""
    training = importlib.import_module(MODULES[args.trainer])
    config = training.TrainerConfig(
        output_dir=args.output / args.trainer,
        learning_rate=args.learning_rate,
        nb_training_epochs=args.epochs,
        batch_size=args.batch_size,
        seed=args.seed,
        checkpoint_metric="macro_f1-score",
        minimize_checkpoint_metric=False,
    )
    beyond_medkit = {}
    if args.trainer == "medjax":
        window = 100 if args.grouped else 0
        options = training.Options(length_window=window, precision=args.precision)
        beyond_medkit = {"options": options}
    return training.Trainer(
        component,
        config,
        MedkitDocuments(train),
        MedkitDocuments(devel),
        metrics_computer=SeqEvalMetricsComputer(component.id_to_label, tagging_scheme="iob2"),
        **beyond_medkit,
    )


def main(arguments: Sequence[str] | None = None) -> dict[str, float]:
    """Train, score the test split, and let medkit find entities with the best checkpoint."""
    args = parse(arguments)
    args.output.mkdir(parents=True, exist_ok=True)
    corpus = load_corpus(args.data, args.seed)
    labels = sorted({e.label for document in corpus.train for e in document.entities})
    print(f"{len(corpus.train)} / {len(corpus.devel)} / {len(corpus.test)} sentences: {labels}")
    torch.manual_seed(args.seed)  # initialises the new classification layer
    component = HFEntityMatcher.make_trainable(
        str(resolve_model(args.model)),
        labels=labels,
        tagging_scheme="iob2",
        tag_subtokens=False,
        tokenizer_max_length=args.max_length,
    )
    trainer = make_trainer(args, component, corpus.train, corpus.devel)
    began = time.monotonic()
    trainer.train(**({"resume": "auto"} if args.resume else {}))
    print(f"Trained in {time.monotonic() - began:.0f} s")
    test = trainer.get_dataloader(MedkitDocuments(corpus.test), shuffle=False)
    scores: dict[str, float] = trainer.evaluation_epoch(test)
    print(f"Test split, last epoch: F1 {scores['macro_f1-score']:.3f} (seqeval, macro)")
    if args.trainer == "medjax":
        matcher = HFEntityMatcher(model=str(trainer.best_checkpoint))
        segments = [Segment(label="sentence", text=s, spans=[Span(0, len(s))]) for s in SENTENCES]
        for entity in matcher.run(segments):
            print(f"{entity.label}: {entity.text}")
    return scores


if __name__ == "__main__":
    main()
