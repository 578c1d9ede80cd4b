"""Fine-tune a pretrained encoder to classify documents, one class each or several.

By default it learns the specialty of synthetic clinic letters; ``--data`` and the names of columns
choose others, ``--separator`` classes that occur together. Everything it writes goes to
``--output``: checkpoints, metrics as CSV and JSON lines, learning curves, a calibration plot and a
report with 95 % intervals. A run that was killed at any moment continues with ``--resume``.
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
from sklearn.metrics import confusion_matrix

import medjax
from medjax.components import TextClassification
from medjax.metrics import ClassificationMetrics, bootstrap, choose_thresholds, format_scores
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
    add("--group", default=None, help="column of the patient, for the intervals")
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
    return parser.parse_args(arguments)


def load(args: argparse.Namespace) -> list[list[LabelledText]]:
    """Read train, devel and test; a single file is split 80 / 10 / 10."""
    if not 1 <= len(args.data) <= 3:
        raise ValueError(f"--data got {len(args.data)} files; expected 1, 2 or 3")
    parts = [
        read_texts(
            path, text=args.text, label=args.label, group=args.group, separator=args.separator
        )
        for path in args.data
    ]
    if len(parts) == 1:
        shuffled = [parts[0][index] for index in medjax.epoch_order(args.seed, 0, len(parts[0]))]
        first, second = int(len(shuffled) * 0.8), int(len(shuffled) * 0.9)
        parts = [shuffled[:first], shuffled[first:second], shuffled[second:]]
    if len(parts) == 2:  # the second file is for the report; the best epoch is not chosen by it
        shuffled = [parts[0][index] for index in medjax.epoch_order(args.seed, 0, len(parts[0]))]
        cut = int(len(shuffled) * 0.9)
        parts = [shuffled[:cut], shuffled[cut:], parts[1]]
    for name, part in zip(("train", "devel", "test"), parts, strict=True):
        if not part:
            raise ValueError(f"--data leaves no text for {name}; expected some in each part")
    return parts


def columns_of(
    classifier: TextClassification, variables: Any, config: Any, texts: list[LabelledText]
) -> dict[str, list[Any]]:
    """Return labels and probabilities of texts, in their order."""
    metrics = ClassificationMetrics(classifier.labels, multi_label=classifier.is_multi_label)
    return medjax.evaluation_columns(
        classifier.component, variables, config, texts, metrics_computer=metrics
    )


def report(
    classifier: TextClassification,
    columns: dict[str, list[Any]],
    thresholds: Any,
    texts: list[LabelledText],
) -> str:
    """Return all scores with their intervals, and the confusion of single classes."""
    metrics = ClassificationMetrics(
        classifier.labels, multi_label=classifier.is_multi_label, threshold=thresholds
    )
    groups = [text.group for text in texts] if texts[0].group else None
    intervals = bootstrap(metrics, columns, groups=groups)
    unit = "patient" if groups else "text"
    lines = [f"Test, {len(texts)} texts; 95 % intervals by {unit}:", format_scores(intervals)]
    width = max(map(len, classifier.labels))
    if classifier.is_multi_label:
        lines += ["", "Thresholds, chosen on devel:"]
        lines += [f"{label.ljust(width)}  {value:.3f}" for label, value in thresholds.items()]
        return "\n".join(lines)
    predicted = np.argmax(columns["probabilities"], axis=1)
    table = confusion_matrix(columns["labels"], predicted, labels=range(len(classifier.labels)))
    lines += ["", "Confusion, true by row and predicted by column:"]
    widths = [max(len(label), 5) for label in classifier.labels]
    names = [label.rjust(w) for label, w in zip(classifier.labels, widths, strict=True)]
    lines.append("  ".join(["".ljust(width), *names]))
    for label, row in zip(classifier.labels, table, strict=True):
        cells = [str(cell).rjust(w) for cell, w in zip(row, widths, strict=True)]
        lines.append("  ".join([label.ljust(width), *cells]))
    return "\n".join(lines)


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
    train, devel, test = load(args)
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
    nb_updates = -(-len(train) // args.batch_size) * args.epochs
    result = medjax.train(
        classifier.component,
        config,
        train,
        devel,
        metrics_computer=ClassificationMetrics(labels, multi_label=classifier.is_multi_label),
        schedule=optax.linear_schedule(args.learning_rate, 0, nb_updates),
        options=options,
        resume="auto" if args.resume else None,
    )
    medjax.plot_history(
        result.history, args.output / "learning_curves.png", metrics=("loss", "macro_f1-score")
    )
    variables = classifier.load(result.best_checkpoint)
    thresholds: Any = 0.5
    if classifier.is_multi_label:
        chosen = columns_of(classifier, variables, config, devel)
        thresholds = choose_thresholds(chosen, classifier.labels)
    columns = columns_of(classifier, variables, config, test)
    text = report(classifier, columns, thresholds, test)
    plot_calibration(classifier, columns, args.output / "calibration.png")
    (args.output / "report.txt").write_text(text + "\n", encoding="utf-8")
    print(f"\n{text}\n\nBest checkpoint: {result.best_checkpoint}")
    return result


if __name__ == "__main__":
    main()
