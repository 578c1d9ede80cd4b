"""A plain torch loop, the Hugging Face Trainer and medjax_torch, with transformers' encoder."""

from __future__ import annotations

import contextlib
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
import transformers
from torch.utils.data import DataLoader, default_collate

import medjax_torch
from on_device.work import LABELS, Work


def train(name: str, work: Work) -> list[float]:
    """Return the seconds of each epoch of the contender called `name`."""
    transformers.utils.logging.set_verbosity_error()
    torch.manual_seed(0)
    if work.precision == "tf32":
        if not torch.cuda.is_available():
            raise ValueError(
                "TF32 needs an NVIDIA GPU, but torch sees none; leave tf32 out of --precisions"
            )
        torch.set_float32_matmul_precision("high")
    config = transformers.BertConfig(**work.sizes, num_labels=LABELS)
    model = transformers.BertForTokenClassification(config)
    runs: Any = {"torch loop": _loop, "HF Trainer": _hf_trainer, "medjax_torch": _medjax_torch}
    return runs[name](work, model)


def synchronized_time() -> float:
    """Return the time once torch's device has finished all its work."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


def _loop(work: Work, model: Any) -> list[float]:
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model = model.to(device).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
    forward = torch.compile(model) if work.option == "compiled" else model
    loader = DataLoader(work.items(), work.rows, shuffle=True)  # type: ignore[arg-type]
    autocast: Any = contextlib.nullcontext()
    if work.precision == "bfloat16":
        autocast = torch.autocast(device.type, torch.bfloat16)
    seconds = []
    for _ in range(work.epochs):
        began = synchronized_time()
        for batch in loader:
            batch = {column: values.to(device) for column, values in batch.items()}
            with autocast:
                loss = forward(**batch).loss
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
        seconds.append(synchronized_time() - began)
    return seconds


def _hf_trainer(work: Work, model: Any) -> list[float]:
    marks = []

    class Marks(transformers.TrainerCallback):
        def on_epoch_begin(self, *_: Any, **__: Any) -> None:
            marks.append(synchronized_time())

        def on_epoch_end(self, *_: Any, **__: Any) -> None:
            marks.append(synchronized_time())

    with tempfile.TemporaryDirectory() as folder:
        arguments = transformers.TrainingArguments(
            output_dir=folder,
            per_device_train_batch_size=work.rows,
            learning_rate=1e-4,
            lr_scheduler_type="constant",
            num_train_epochs=work.epochs,
            save_strategy="no",
            bf16=work.precision == "bfloat16",
            torch_compile=work.option == "compiled",
            use_cpu=not torch.cuda.is_available(),
            report_to=[],
            disable_tqdm=True,
        )
        trainer = transformers.Trainer(
            model=model,
            args=arguments,
            data_collator=default_collate,
            train_dataset=work.items(),  # type: ignore[arg-type]
            callbacks=[Marks()],
        )
        trainer.train()
    return [end - begin for begin, end in zip(marks[::2], marks[1::2], strict=True)]


class Component:
    """The token classifier of transformers, with medkit's methods."""

    device = torch.device("cpu")

    def __init__(self, model: Any) -> None:
        self.model = model

    def configure_optimizer(self, lr: float) -> torch.optim.Optimizer:
        """Return AdamW."""
        return torch.optim.AdamW(self.model.parameters(), lr=lr)

    def preprocess(self, item: dict[str, Any]) -> dict[str, Any]:
        """Return the item as it is."""
        return item

    def collate(self, rows: list[dict[str, Any]]) -> Any:
        """Stack the rows."""
        return medjax_torch.BatchData(default_collate(rows))

    def forward(self, batch: Any, return_loss: bool, eval_mode: bool) -> Any:
        """Return logits and loss."""
        self.model.train(not eval_mode)
        output = self.model(**batch)
        return medjax_torch.BatchData(logits=output.logits), output.loss

    def save(self, path: Path) -> None:
        """Write the weights."""
        torch.save(self.model.state_dict(), Path(path) / "weights.pt")

    def load(self, path: Path) -> None:
        """Read the weights."""
        weights = torch.load(Path(path) / "weights.pt", weights_only=True)
        self.model.load_state_dict(weights)


def _medjax_torch(work: Work, model: Any) -> list[float]:
    marks = []

    class Marks(medjax_torch.TrainerCallback):
        def on_step_begin(self, step: int, nb_batches: int, phase: str) -> None:
            if step == 0:  # of training, and of the evaluation after it
                marks.append(time.perf_counter())

    items = work.items()
    attention = "cudnn" if work.option == "cudnn" else "xla"
    with tempfile.TemporaryDirectory() as folder:
        medjax_torch.Trainer(
            Component(model),
            medjax_torch.TrainerConfig(
                output_dir=folder,
                learning_rate=1e-4,
                nb_training_epochs=work.epochs,
                batch_size=work.rows,
                seed=0,
                checkpoint_period=0,
            ),
            items,
            items[: work.rows],
            callback=Marks(),
            options=medjax_torch.Options(
                precision=work.precision,  # type: ignore[arg-type]
                attention_implementation=attention,
                compilation_cache=None,
                deterministic=False,  # nor is torch
            ),
        ).train()
    return [end - begin for begin, end in zip(marks[::2], marks[1::2], strict=True)]
