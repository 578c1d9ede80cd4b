"""Fine-tune a pretrained encoder for clinical named entity recognition.

By default it trains MiniLM on a small synthetic corpus; ``--data`` and ``--model`` choose others.
Everything it writes goes to ``--output``: checkpoints, metrics as CSV and JSON lines, learning
curves and a report. A run that was killed at any moment continues with ``--resume``.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import optax

import medjax
from medjax.components import TokenClassification
from medjax.metrics import entity_confusion, format_confusion, format_scores
from medjax.text import Document, Entity, split_sentences
from medjax.text.readers import format_of, read_documents

SYNTHETIC = Path(__file__).parent / "data" / "synthetic_clinical"
SPLITS = {"train": ("train",), "devel": ("devel", "dev", "valid", "validation"), "test": ("test",)}
SENTENCES = (
    "No chest pain since the stent; aspirin 100 mg daily was continued.",
    "CT of the abdomen showed acute pancreatitis, so he was kept on intravenous fluids.",
    "She denies fever, but her creatinine rose after ibuprofen for chronic back pain.",
)


class Corpus(NamedTuple):
    """Documents to train on, to choose the best epoch with, and to report on."""

    train: list[Document]
    devel: list[Document]
    test: list[Document]


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    add = parser.add_argument
    add("--data", nargs="+", type=Path, default=[SYNTHETIC], help="folder with train, devel and "
        "test files, a BRAT folder, or 1 to 3 files in that order")  # fmt: skip
    add("--encoding", default=None, help="encoding of the data, such as cp1252; by default UTF-8")
    add("--model", default="minilm", help="folder of a checkpoint, or a name")
    add("--output", type=Path, default=Path("runs/clinical_ner"), help="folder for the results")
    add("--resume", action="store_true", help="continue from the last checkpoint in --output")
    add("--epochs", type=int, default=5)
    add("--batch-size", type=int, default=16)
    add("--learning-rate", type=float, default=3e-4)
    add("--weight-decay", type=float, default=0.01)
    add("--warmup", type=float, default=0.1, help="as a fraction of the updates")
    add("--constant-rate", action="store_true", help="do not lower the learning rate to 0")
    add("--seed", type=int, default=0)
    add("--max-length", type=int, default=128, help="maximum number of tokens in a sentence")
    add("--scheme", choices=("iob2", "bilou", "iobes"), default="iob2")
    add("--precision", choices=("float32", "bfloat16"), default="float32")
    add(
        "--save-interval",
        type=int,
        default=None,
        help="batches between checkpoints within an epoch",
    )
    return parser.parse_args(arguments)


def load_corpus(paths: Sequence[Path], seed: int, encoding: str | None = None) -> Corpus:
    """Read the corpus and, if it has no splits of its own, split it 80 / 10 / 10.

    A folder with an entry for the train split is read as splits; any other folder is read as BRAT.

    Raises
    ------
    ValueError
        If there are more than three files, or a folder contains nothing readable.
    """
    if len(paths) == 1 and paths[0].is_dir():
        splits = [_find_split(paths[0], names) for names in SPLITS.values()]
        if splits[0] or not any(file.suffix.lower() == ".ann" for file in paths[0].rglob("*")):
            paths = [_only(paths[0], *both) for both in zip(splits, SPLITS.values(), strict=True)]
    if len(paths) > 3:
        raise ValueError(f"--data got {len(paths)} files; expected 1, 2 or 3: train, devel, test")
    parts = [_read_sentences(path, encoding) for path in paths]
    if len(parts) == 1:
        shuffled = [parts[0][index] for index in medjax.epoch_order(seed, 0, len(parts[0]))]
        first, second = int(len(shuffled) * 0.8), int(len(shuffled) * 0.9)
        parts = [shuffled[:first], shuffled[first:second], shuffled[second:]]
    return Corpus(parts[0], parts[1], parts[-1])


def check(corpus: Corpus) -> None:
    """Refuse an empty split and a corpus without entities; print labels that training lacks."""
    for name, sentences in corpus._asdict().items():
        if not sentences:
            sizes = " / ".join(str(len(part)) for part in corpus)
            msg = f"--data gives {sizes} sentences; expected some to train, choose and report on"
            raise ValueError(f"{msg}, but there is none in {name}")
    known = labels_in(corpus.train)
    if not known:
        raise ValueError("--data has no entity in its train split; expected annotated sentences")
    for name, sentences in (("devel", corpus.devel), ("test", corpus.test)):
        if unknown := sorted(set(labels_in(sentences)) - set(known)):
            print(f"{name} has labels that train lacks, which count as missed: {unknown}")


def labels_in(documents: Sequence[Document]) -> list[str]:
    """Return the labels of all entities, sorted."""
    return sorted({entity.label for document in documents for entity in document.entities})


def _read_sentences(path: Path, encoding: str | None) -> list[Document]:
    documents = read_documents(path, encoding)
    if format_of(path) == "conll":
        return documents
    return [sentence for document in documents for sentence in split_sentences(document)]


def _find_split(folder: Path, names: Sequence[str]) -> list[Path]:
    """Return the entries named after a split: ``dev.tsv``, ``corpus.dev`` or a folder ``dev``."""
    entries = [path for path in sorted(folder.iterdir()) if not path.name.startswith(".")]
    texts = {path.with_suffix(".txt") for path in entries if path.suffix.lower() == ".ann"}
    return [
        path
        for path in entries
        if {path.stem.lower(), path.suffix[1:].lower()} & set(names) and path not in texts
    ]


def _only(folder: Path, entries: Sequence[Path], names: Sequence[str]) -> Path:
    if len(entries) != 1:
        msg = (
            f"{folder} has {len(entries)} files or folders named {' or '.join(names)}; expected one"
        )
        raise ValueError(msg)
    return entries[0]


def report(
    tagger: TokenClassification,
    variables: dict[str, Any],
    config: medjax.TrainerConfig,
    documents: list[Document],
) -> str:
    """Return tables of the scores by label, with 95 % intervals by sentence, and the confusion."""
    lenient = medjax.SpanMetrics(tagger.tags)
    columns = medjax.evaluation_columns(
        tagger.component, variables, config, documents, metrics_computer=lenient
    )
    strict = medjax.SpanMetrics(tagger.tags, tagger.tagging_scheme)
    return "\n\n".join(
        (
            f"Test split, {len(documents)} sentences, rule of conlleval:",
            table(lenient, columns),
            f"The same, strict {tagger.tagging_scheme}:",
            table(strict, columns),
            "Confusion, rule of conlleval:",
            format_confusion(entity_confusion(*lenient.entities(columns))),
        )
    )


def table(metrics: medjax.SpanMetrics, columns: dict[str, list[Any]]) -> str:
    """Return the scores with their intervals, which need more than one sentence."""
    if len(columns["y_true"]) < 2:
        return format_scores(metrics.compute(columns))
    return format_scores(medjax.bootstrap(metrics, columns))


def marked(text: str, entities: Sequence[Entity]) -> str:
    """Return a text with its entities in brackets."""
    parts, position = [], 0
    for entity in entities:
        inside = f"[{text[entity.start : entity.end]}]({entity.label} {entity.score:.2f})"
        parts += [text[position : entity.start], inside]
        position = entity.end
    return "".join([*parts, text[position:]])


def main(arguments: Sequence[str] | None = None) -> medjax.TrainResult:
    """Train, report, and print the entities that the tagger finds in three sentences."""
    args = parse(arguments)
    corpus = load_corpus(args.data, args.seed, args.encoding)
    check(corpus)
    labels = labels_in(corpus.train)
    print(f"{len(corpus.train)} / {len(corpus.devel)} / {len(corpus.test)} sentences: {labels}")
    tagger = TokenClassification.from_pretrained(
        args.model,
        labels,
        tagging_scheme=args.scheme,
        max_length=args.max_length,
        optimizer=optax.adam,
    )
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
        weight_decay=args.weight_decay,
        max_grad_norm=1.0,
        warmup_steps=args.warmup,
        precision=args.precision,
        cache_preprocessed=True,
        save_interval_steps=args.save_interval,
        log_dir=args.output,
    )
    nb_updates = -(-len(corpus.train) // args.batch_size) * args.epochs
    falling = optax.linear_schedule(args.learning_rate, 0, nb_updates)
    result = medjax.train(
        tagger.component,
        config,
        corpus.train,
        corpus.devel,
        metrics_computer=medjax.SpanMetrics(tagger.tags),
        schedule=None if args.constant_rate else falling,
        options=options,
        resume="auto" if args.resume else None,
    )
    medjax.plot_history(
        result.history, args.output / "learning_curves.png", metrics=("loss", "micro_f1-score")
    )
    variables = tagger.load(result.best_checkpoint)
    text = report(tagger, variables, config, corpus.test)
    (args.output / "report.txt").write_text(text + "\n", encoding="utf-8")
    print(f"\n{text}\n\nThree sentences:\n")
    for sentence, entities in zip(SENTENCES, tagger.predict(variables, SENTENCES), strict=True):
        print(marked(sentence, entities))
    print(f"\nBest checkpoint: {result.best_checkpoint}\nLast checkpoint: {result.last_checkpoint}")
    return result


if __name__ == "__main__":
    main()
