"""Fine-tune a pretrained encoder for clinical named entity recognition.

By default it trains MiniLM on a small synthetic corpus; ``--data`` and ``--model`` choose others.
Everything it writes goes to ``--output``: checkpoints, metrics as CSV and JSON lines, learning
curves and a report, as text and as a page for a browser. A run that was killed at any moment
continues with ``--resume``.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import optax

import medjax
from medjax.components import TokenClassification
from medjax.recipes import Parts, keep_split, locate_parts, report_entities, split_parts
from medjax.text import Document, Entity, split_sentences
from medjax.text.readers import format_of, read_documents

SYNTHETIC = Path(__file__).parent / "data" / "synthetic_clinical"
SENTENCES = (
    "No chest pain since the stent; aspirin 100 mg daily was continued.",
    "CT of the abdomen showed acute pancreatitis, so he was kept on intravenous fluids.",
    "She denies fever, but her creatinine rose after ibuprofen for chronic back pain.",
)


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
    add(
        "--no-texts",
        action="store_true",
        help="leave out of report.html the test sentences with errors",
    )
    return parser.parse_args(arguments)


def load_corpus(paths: Sequence[Path], seed: int, encoding: str | None = None) -> Parts:
    """Read the corpus as sentences and, as far as it has no parts of its own, split it.

    A folder with an entry for the train split is read as splits; any other folder is read as BRAT,
    whose notes are in one part each.

    Raises
    ------
    ValueError
        If there are more than three files, or a folder contains nothing readable or some of the
        splits only.
    """
    return split_parts([_read_sentences(path, encoding) for path in locate_parts(paths)], seed)


def check(corpus: Parts) -> None:
    """Refuse a corpus without entities; print labels that training lacks."""
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
    # Of entities that overlap, the tagger learns the longest; the others count as missed.
    documents = read_documents(path, encoding, overlapping=True)
    if format_of(path) == "conll":
        return documents
    # Relations are of no use to a tagger, so those that sentences cut are not worth a warning.
    bare = [document._replace(relations=()) for document in documents]
    return [sentence for document in bare for sentence in split_sentences(document)]


def examples_of(
    tagger: TokenClassification, variables: dict[str, Any], documents: list[Document]
) -> list[medjax.ErrorExample]:
    """Return the documents with their annotated and their predicted entities."""
    predicted = tagger.predict(variables, [document.text for document in documents])
    return [
        medjax.ErrorExample(document.text, document.entities, entities, document.name)
        for document, entities in zip(documents, predicted, strict=True)
    ]


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
    keep_split(corpus, args.seed, args.output, resume=args.resume)
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
    page = {
        "title": "Clinical entities",
        "metrics": ("loss", "micro_f1-score"),
        "settings": {"model": args.model, "data": " ".join(map(str, args.data)), "labels": labels},
    }
    nb_updates = -(-len(corpus.train) // args.batch_size) * args.epochs
    falling = optax.linear_schedule(args.learning_rate, 0, nb_updates)
    result = medjax.train(
        tagger.component,
        config,
        corpus.train,
        corpus.devel,
        metrics_computer=medjax.SpanMetrics(tagger.tags),
        schedule=None if args.constant_rate else falling,
        callback=[
            medjax.DefaultPrinterCallback(),
            medjax.ReportWriter(args.output, options, **page),
        ],
        options=options,
        resume="auto" if args.resume else None,
    )
    curves = args.output / "learning_curves.png"
    medjax.plot_history(result.history, curves, metrics=page["metrics"])
    variables = tagger.load(result.best_checkpoint)
    report = report_entities(tagger, variables, corpus.test, unit="sentence")
    text = f"Test split: {report.text}"
    (args.output / "report.txt").write_text(text + "\n", encoding="utf-8")
    medjax.write_report(
        args.output / "report.html",
        result.history,
        config,
        options,
        errors=examples_of(tagger, variables, corpus.test),
        max_errors=0 if args.no_texts else 20,
        tables=report.tables,
        confusion=report.confusion,
        **page,
    )
    print(f"\n{text}\n\nThree sentences:\n")
    for sentence, entities in zip(SENTENCES, tagger.predict(variables, SENTENCES), strict=True):
        print(marked(sentence, entities))
    print(f"\nBest checkpoint: {result.best_checkpoint}\nLast checkpoint: {result.last_checkpoint}")
    return result


if __name__ == "__main__":
    main()
