"""Fine-tune a pretrained encoder to classify documents, one class each or several.

By default it learns the specialty of synthetic clinic letters; ``--data`` and the names of columns
choose others, ``--separator`` classes that occur together. Everything it writes goes to
``--output``: checkpoints, metrics as CSV and JSON lines, learning curves, a calibration plot and a
report with 95 % intervals, as text and as a page for a browser. A run that was killed at any moment
continues with ``--resume``.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")

import numpy as np
import optax
from matplotlib import pyplot
from sklearn.calibration import calibration_curve

import medjax
from medjax.components import TextClassification
from medjax.metrics import ClassificationMetrics, choose_thresholds
from medjax.recipes import (
    Parts,
    check_test,
    evaluated,
    keep_split,
    locate_parts,
    report_texts,
    split_parts,
)
from medjax.text import LabelledText
from medjax.text.readers import read_texts

LETTERS = Path(__file__).parent / "data" / "synthetic_letters"


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    add = parser.add_argument
    letters = [LETTERS / f"{part}.csv" for part in ("train", "devel", "test")]
    add("--data", nargs="+", type=Path, default=letters, help="1 to 3 files (.csv, .tsv, .jsonl, "
        ".parquet): train, devel, test; what is missing is split off")  # fmt: skip
    add("--text", default="text", help="column of the texts")
    add("--label", default="specialty", help="column of the classes")
    add(
        "--separator",
        default=None,
        help="what separates the classes of a text that may have several",
    )
    add("--group", default=None, help="column of the patient, for the parts and intervals")
    add("--model", default="minilm", help="folder of a checkpoint, or a name")
    add("--output", type=Path, default=Path("runs/document_classification"))
    add("--resume", action="store_true", help="continue from the last checkpoint in --output")
    add("--epochs", type=int, default=4)
    add("--batch-size", type=int, default=16)
    add("--learning-rate", type=float, default=1e-4)
    add("--warmup", type=float, default=0.1, help="as a fraction of the updates")
    add("--seed", type=int, default=0)
    add("--max-length", type=int, default=256, help="tokens of a window; longer texts have several")
    add("--pooling", choices=("mean", "max"), default="mean", help="how windows are joined")
    add("--precision", choices=("float32", "bfloat16"), default="float32")
    add(
        "--no-texts",
        action="store_true",
        help="leave out of report.html the test texts with errors",
    )
    return parser.parse_args(arguments)


def load(args: argparse.Namespace) -> Parts:
    """Read train, devel and test; what is missing is split off."""
    parts = [
        read_texts(
            path, text=args.text, label=args.label, group=args.group, separator=args.separator
        )
        for path in locate_parts(args.data)
    ]
    return split_parts(parts, args.seed)


def errors_of(
    classifier: TextClassification,
    columns: dict[str, list[Any]],
    texts: list[LabelledText],
) -> list[medjax.ErrorExample]:
    """Return the texts whose classes were not predicted."""
    errors, least = [], classifier.thresholds or {}
    for text, probabilities in zip(texts, columns["probabilities"], strict=True):
        by_class = dict(zip(classifier.labels, probabilities, strict=True))
        if classifier.is_multi_label:
            predicted = [label for label, p in by_class.items() if p >= least[label]]
        else:
            predicted = [max(by_class, key=by_class.__getitem__)]
        if set(predicted) != set(text.labels):
            found = ", ".join(f"{label} ({by_class[label]:.2f})" for label in predicted) or "none"
            caption = (
                f"{Path(text.name).name}: {', '.join(text.labels) or 'none'}; predicted: {found}"
            )
            caption = caption.removeprefix(": ")
            errors.append(medjax.ErrorExample(text.text, caption=caption, is_wrong=True))
    return errors


def plot_calibration(
    classifier: TextClassification, columns: dict[str, list[Any]], path: Path
) -> None:
    """Draw how often a class is right by its probability: on the diagonal, both are equal."""
    probabilities = np.array(columns["probabilities"])
    if classifier.is_multi_label:
        right, certain = np.array(columns["labels"]).ravel(), probabilities.ravel()
    else:
        right = probabilities.argmax(1) == np.array(columns["labels"])
        certain = probabilities.max(1)
    shares, means = calibration_curve(right, certain, n_bins=10)
    figure, axes = pyplot.subplots(figsize=(4, 4))
    axes.plot([0, 1], [0, 1], color="grey", linewidth=1)
    axes.plot(means, shares, marker="o")
    axes.set(xlabel="Probability", ylabel="Share that is right", xlim=(0, 1), ylim=(0, 1))
    figure.tight_layout()
    figure.savefig(path, dpi=150)
    pyplot.close(figure)


def main(arguments: Sequence[str] | None = None) -> medjax.TrainResult:
    """Train, choose thresholds on devel, report on test."""
    args = parse(arguments)
    train, devel, test = parts = load(args)
    labels = sorted({label for text in train for label in text.labels})
    print(f"{len(train)} / {len(devel)} / {len(test)} texts: {labels}")
    classifier = TextClassification.from_pretrained(
        args.model,
        labels,
        problem_type=f"{'multi' if args.separator else 'single'}_label_classification",
        pooling=args.pooling,
        max_length=args.max_length,
        optimizer=optax.adam,
    )
    check_test(classifier, test)
    keep_split(parts, args.seed, args.output, resume=args.resume)
    config = medjax.TrainerConfig(
        output_dir=args.output / "checkpoints",
        learning_rate=args.learning_rate,
        nb_training_epochs=args.epochs,
        batch_size=args.batch_size,
        seed=args.seed,
        checkpoint_metric="macro_f1-score",
        minimize_checkpoint_metric=False,
    )
    options = medjax.Options(
        weight_decay=0.01,
        max_grad_norm=1.0,
        warmup_steps=args.warmup,
        precision=args.precision,
        cache_preprocessed=True,
        log_dir=args.output,
    )
    page = {
        "title": "Classes of documents",
        "metrics": ("loss", "macro_f1-score"),
        "settings": {"model": args.model, "data": " ".join(map(str, args.data)), "classes": labels},
    }
    nb_updates = -(-len(train) // args.batch_size) * args.epochs
    metrics = ClassificationMetrics(classifier.labels, multi_label=classifier.is_multi_label)
    result = medjax.train(
        classifier.component,
        config,
        train,
        devel,
        metrics_computer=metrics,
        schedule=optax.linear_schedule(args.learning_rate, 0, nb_updates),
        callback=[
            medjax.DefaultPrinterCallback(),
            medjax.ReportWriter(args.output, options, **page),
        ],
        options=options,
        resume="auto" if args.resume else None,
    )
    curves = args.output / "learning_curves.png"
    medjax.plot_history(result.history, curves, metrics=page["metrics"])
    variables = classifier.load(result.best_checkpoint)
    if classifier.is_multi_label:
        _, chosen = evaluated(classifier.component, variables, devel, metrics)
        classifier = classifier.with_thresholds(choose_thresholds(chosen, classifier.labels))
    model = args.output / "model"
    classifier.save(model, variables)
    report = report_texts(classifier, variables, test)
    text = f"Test: {report.text}"
    plot_calibration(classifier, report.columns, args.output / "calibration.png")
    (args.output / "report.txt").write_text(text + "\n", encoding="utf-8")
    medjax.write_report(
        args.output / "report.html",
        result.history,
        config,
        options,
        errors=errors_of(classifier, report.columns, test),
        max_errors=0 if args.no_texts else 20,
        tables=report.tables,
        confusion=report.confusion,
        **page,
    )
    print(f"\n{text}\n\nBest checkpoint: {result.best_checkpoint}\nModel: {model}")
    return result


if __name__ == "__main__":
    main()
