"""The Hugging Face Trainer, Lightning, and a plain torch loop, each with its own defaults.

All of them train the token classifier of transformers on sentences tokenised beforehand.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Any

import torch
import transformers
from torch.utils.data import DataLoader

import medjax
from contenders.work import Clock, Work, padding
from medjax.components import TokenClassification
from medjax.models import resolve_model
from medjax.text import Document


def train(work: Work, clock: Clock) -> dict[str, Any]:
    """Train with the contender that `work` names."""
    transformers.utils.logging.set_verbosity_error()
    task = Task(work)
    runs = {"HF": _hf_trainer, "Lightning": _lightning, "torch": _loop}
    loader = runs[work.name.split()[0]](task, clock)
    return padding(
        (*batch["input_ids"].shape, batch["attention_mask"].sum(1).numpy()) for batch in loader
    )


class Task:
    """The model, the tokenised sentences and how predictions are scored."""

    def __init__(self, work: Work) -> None:
        tagger = TokenClassification.from_pretrained(
            work.model, work.labels, max_length=work.max_length
        )
        folder = str(resolve_model(work.model))
        torch.manual_seed(work.seed)
        self.work = work
        self.metrics = medjax.SpanMetrics(tagger.tags)
        self.model = transformers.AutoModelForTokenClassification.from_pretrained(
            folder, num_labels=len(tagger.tags)
        )
        self.train = _tokens(tagger, work.train)
        self.test = _tokens(tagger, work.test)
        self.collate = transformers.DataCollatorForTokenClassification(
            transformers.AutoTokenizer.from_pretrained(folder)
        )

    def loaders(self) -> tuple[DataLoader[Any], DataLoader[Any]]:
        """Return the training loader, which shuffles, and the test loader."""
        size = self.work.batch_size
        return (
            DataLoader(self.train, size, shuffle=True, collate_fn=self.collate),  # type: ignore[arg-type]
            DataLoader(self.test, size, collate_fn=self.collate),  # type: ignore[arg-type]
        )

    def score(self, predictions: list[Any], labels: list[Any]) -> dict[str, float]:
        """Return the span scores of batches of predicted and true tag ids."""
        columns: dict[str, list[Any]] = {"y_true": [], "y_pred": []}
        for predicted, true in zip(predictions, labels, strict=True):
            kept = self.metrics.prepare_batch({"predictions": predicted}, {"labels": true})
            for name, column in kept.items():
                columns[name] += column
        return self.metrics.compute(columns)


def _tokens(tagger: TokenClassification, documents: Sequence[Document]) -> list[dict[str, Any]]:
    """Return the columns that these contenders train on; their scores compare tags with tags."""
    examples = [tagger.preprocess(item) for item in tagger.expand(documents).items]
    return [{name: row[name] for name in ("input_ids", "labels")} for row in examples]


def _hf_trainer(task: Task, clock: Clock) -> Any:
    work = task.work

    def compute_metrics(result: Any) -> dict[str, float]:
        scores = task.score([result.predictions.argmax(-1)], [result.label_ids])
        clock.epoch(scores)
        return scores

    arguments = transformers.TrainingArguments(
        output_dir=str(work.output),
        per_device_train_batch_size=work.batch_size,
        per_device_eval_batch_size=work.batch_size,
        learning_rate=work.learning_rate,
        lr_scheduler_type="constant",
        num_train_epochs=work.epochs,
        eval_strategy="epoch",
        save_strategy="epoch",
        seed=work.seed,
        bf16=work.precision == "bfloat16",
        use_cpu=not torch.cuda.is_available(),
        train_sampling_strategy="group_by_length" if work.grouped else "random",
        report_to=[],
        disable_tqdm=True,
    )
    trainer = transformers.Trainer(
        model=task.model,
        args=arguments,
        data_collator=task.collate,
        train_dataset=task.train,  # type: ignore[arg-type]
        eval_dataset=task.test,  # type: ignore[arg-type]
        compute_metrics=compute_metrics,
    )
    trainer.train()
    return trainer.get_train_dataloader()


def _lightning(task: Task, clock: Clock) -> Any:
    import lightning

    work = task.work

    class Module(lightning.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.model = task.model
            self.predicted: list[Any] = []
            self.true: list[Any] = []

        def training_step(self, batch: Any, number: int) -> torch.Tensor:
            return self.model(**batch).loss

        def validation_step(self, batch: Any, number: int) -> None:
            self.predicted.append(self.model(**batch).logits.argmax(-1).cpu().numpy())
            self.true.append(batch["labels"].cpu().numpy())

        def on_validation_epoch_end(self) -> None:
            clock.epoch(task.score(self.predicted, self.true))
            self.predicted, self.true = [], []

        def configure_optimizers(self) -> Any:
            return torch.optim.AdamW(self.model.parameters(), lr=work.learning_rate)

    loaders = task.loaders()
    trainer = lightning.Trainer(
        max_epochs=work.epochs,
        default_root_dir=work.output,
        precision="bf16-mixed" if work.precision == "bfloat16" else "32-true",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
    )
    trainer.fit(Module(), *loaders)
    return loaders[0]


def _loop(task: Task, clock: Clock) -> Any:
    work = task.work
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model = task.model.to(device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=work.learning_rate)
    loader, test = task.loaders()
    autocast = contextlib.nullcontext()
    if work.precision == "bfloat16":
        autocast = torch.autocast(device.type, torch.bfloat16)  # type: ignore[assignment]
    for _ in range(work.epochs):
        model.train()
        for batch in loader:
            with autocast:
                loss = model(**batch.to(device)).loss
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
        model.eval()
        predicted, true = [], []
        with torch.no_grad():
            for batch in test:
                with autocast:
                    predicted.append(model(**batch.to(device)).logits.argmax(-1).cpu().numpy())
                true.append(batch["labels"].cpu().numpy())
        clock.epoch(task.score(predicted, true))
    return loader
