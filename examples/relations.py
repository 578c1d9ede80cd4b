"""Fine-tune a pretrained encoder to find which entities of a document are related, and how.

By default it learns from synthetic notes which drug relieves or causes which sign, and which dose
is whose; ``--data`` chooses other documents with entities and relations. Everything it writes goes
to ``--output``: checkpoints, metrics as CSV and JSON lines, learning curves, a report with 95 %
intervals and the test documents with the relations found, for BRAT. A run that was killed at any
moment continues with ``--resume``.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import optax

import medjax
from medjax.components import RelationClassification
from medjax.metrics import RelationMetrics
from medjax.recipes import Parts, keep_split, locate_parts, report_relations, split_parts
from medjax.text import Document, relation_kinds
from medjax.text.readers import read_documents
from medjax.text.writers import write_brat

NOTES = Path(__file__).parent / "data" / "synthetic_relations"
PARTS = ("train", "devel", "test")


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    add = parser.add_argument
    notes = [NOTES / part for part in PARTS]
    add("--data", nargs="+", type=Path, default=notes, help="1 to 3 files or BRAT folders: train, "
        "devel, test; what is missing is split off")  # fmt: skip
    add("--encoding", default=None, help="encoding of the data, such as cp1252; by default UTF-8")
    add("--model", default="minilm", help="folder of a checkpoint, or a name")
    add("--output", type=Path, default=Path("runs/relations"), help="folder for the results")
    add("--resume", action="store_true", help="continue from the last checkpoint in --output")
    add("--epochs", type=int, default=5)
    add("--batch-size", type=int, default=16)
    add("--learning-rate", type=float, default=3e-4)
    add("--warmup", type=float, default=0.1, help="as a fraction of the updates")
    add("--seed", type=int, default=0)
    add("--reach", type=int, default=100, help="most characters between two related entities")
    add("--context", type=int, default=60, help="characters to read before and after them")
    add("--max-length", type=int, default=256, help="maximum number of tokens of a pair")
    add("--negatives", type=float, default=2.0, help="pairs without a relation that are drawn in "
        "each epoch, for each with one; -1 for all")  # fmt: skip
    add("--precision", choices=("float32", "bfloat16"), default="float32")
    return parser.parse_args(arguments)


def load(args: argparse.Namespace) -> Parts:
    """Read train, devel and test; what is missing is split off."""
    read = [
        read_documents(path, args.encoding, overlapping=True) for path in locate_parts(args.data)
    ]
    parts = split_parts(read, args.seed)
    for name, part in parts._asdict().items():
        if not any(document.relations for document in part):
            msg = (
                f"--data has no relation in the {len(part)} documents of {name}; expected some in "
                "each part"
            )
            raise ValueError(msg)
    return parts


def found_in(
    classifier: RelationClassification,
    variables: Any,
    options: medjax.Options,
    documents: list[Document],
) -> list[Document]:
    """Return documents with the relations that are found; BRAT's labels have no white space."""
    found = classifier.predict(variables, documents, options=options)
    return [
        document._replace(
            entities=tuple(_fit_for_brat(entity) for entity in document.entities),
            relations=tuple(_fit_for_brat(relation) for relation in relations),
        )
        for document, relations in zip(documents, found, strict=True)
    ]


def _fit_for_brat(annotation: Any) -> Any:
    return annotation._replace(label=re.sub(r"\s+", "_", annotation.label))


def main(arguments: Sequence[str] | None = None) -> medjax.TrainResult:
    """Train, choose the best epoch on devel, report on test and write what is found there."""
    args = parse(arguments)
    train, devel, test = parts = load(args)
    labels, kinds = relation_kinds(train)
    print(f"{len(train)} / {len(devel)} / {len(test)} documents: {labels} between {kinds}")
    classifier = RelationClassification.from_pretrained(
        args.model,
        labels,
        kinds,
        reach=args.reach,
        context=args.context,
        negatives=args.negatives if args.negatives >= 0 else None,
        max_length=args.max_length,
        optimizer=optax.adam,
    )
    keep_split(parts, args.seed, args.output, resume=args.resume)
    config = medjax.TrainerConfig(
        output_dir=args.output / "checkpoints",
        learning_rate=args.learning_rate,
        nb_training_epochs=args.epochs,
        batch_size=args.batch_size,
        seed=args.seed,
        checkpoint_metric="micro_f1-score",
        minimize_checkpoint_metric=False,
    )
    options = medjax.Options(
        weight_decay=0.01,
        max_grad_norm=1.0,
        warmup_steps=args.warmup,
        precision=args.precision,
        cache_preprocessed=classifier.negatives is None,  # otherwise each epoch draws anew
        log_dir=args.output,
    )
    nb_updates = -(-len(classifier.expand(train)) // args.batch_size) * args.epochs
    result = medjax.train(
        classifier.component,
        config,
        train,
        devel,
        metrics_computer=RelationMetrics(classifier.classes),
        schedule=optax.linear_schedule(args.learning_rate, 0, nb_updates),
        options=options,
        resume="auto" if args.resume else None,
    )
    medjax.plot_history(
        result.history, args.output / "learning_curves.png", metrics=("loss", "micro_f1-score")
    )
    variables = classifier.load(result.best_checkpoint)
    text = f"Test: {report_relations(classifier, variables, test, options=options).text}"
    (args.output / "report.txt").write_text(text + "\n", encoding="utf-8")
    write_brat(found_in(classifier, variables, options, test), args.output / "predictions")
    print(f"\n{text}\n\nBest checkpoint: {result.best_checkpoint}")
    return result


if __name__ == "__main__":
    main()
