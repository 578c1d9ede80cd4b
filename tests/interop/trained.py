"""Small torch components with medkit's protocol, their data, and how to train them."""

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from medjax_torch import BatchData, Options, Trainer, TrainerConfig

POINTS = torch.randn(44, 6, generator=torch.Generator().manual_seed(0))
CLASSES = (POINTS[:, :2].sum(1) > 0).long() + (POINTS[:, 2] > 1).long()
DATA = [{"x": x, "y": int(y)} for x, y in zip(POINTS, CLASSES, strict=True)]


class Classifier:
    """Classifies points into three classes."""

    device = torch.device("cpu")

    def __init__(self, optimizer=torch.optim.AdamW, dropout=0.0, **options):
        torch.manual_seed(1)
        self.model = nn.Sequential(
            nn.Linear(6, 16), nn.ReLU(), nn.Dropout(dropout), nn.Linear(16, 3)
        )
        self.optimizer, self.options = optimizer, options

    def configure_optimizer(self, lr):
        return self.optimizer(self.model.parameters(), lr=lr, **self.options)

    def preprocess(self, item):
        return item

    def collate(self, examples):
        return BatchData(
            x=torch.stack([example["x"] for example in examples]),
            y=torch.tensor([example["y"] for example in examples]),
        )

    def forward(self, batch, return_loss, eval_mode):
        self.model.train(not eval_mode)
        logits = self.model(batch["x"])
        loss = F.cross_entropy(logits, batch["y"]) if return_loss else None
        return BatchData(logits=logits), loss

    def save(self, path):
        torch.save(self.model.state_dict(), f"{path}/model.pt")

    def load(self, path):
        self.model.load_state_dict(torch.load(f"{path}/model.pt", weights_only=True))


class TwoHeads(Classifier):
    """A batch with one kind of row uses only one head."""

    def __init__(self, optimizer=torch.optim.AdamW, **options):
        super().__init__(optimizer=optimizer, **options)
        self.model = nn.ModuleDict(
            {"body": nn.Linear(6, 8), "left": nn.Linear(8, 3), "right": nn.Linear(8, 3)}
        )

    def collate(self, examples):
        batch = super().collate(examples)
        batch["head"] = "left" if float(batch["x"].sum()) > 0 else "right"
        return batch

    def forward(self, batch, return_loss, eval_mode):
        self.model.train(not eval_mode)
        logits = self.model[batch["head"]](torch.tanh(self.model["body"](batch["x"])))
        return BatchData(logits=logits), F.cross_entropy(logits, batch["y"])


class Tagger(Classifier):
    """Tags ragged identifiers with three tags; Hugging Face column names, labels of -100."""

    def __init__(self, dropout=0.0):
        super().__init__()
        torch.manual_seed(1)
        self.model = nn.Sequential(nn.Embedding(20, 8), nn.Dropout(dropout), nn.Linear(8, 3))

    def collate(self, examples):
        def padded(name, fill):
            columns = [torch.tensor(example[name]) for example in examples]
            return nn.utils.rnn.pad_sequence(columns, batch_first=True, padding_value=fill)

        return BatchData(input_ids=padded("input_ids", 0), labels=padded("labels", -100))

    def forward(self, batch, return_loss, eval_mode):
        self.model.train(not eval_mode)
        logits = self.model(batch["input_ids"])
        return BatchData(logits=logits), F.cross_entropy(logits.mT, batch["labels"])


def sentences(count=24):
    draw = np.random.default_rng(0)
    rows = [draw.integers(1, 20, draw.integers(2, 30)) for _ in range(count)]
    return [{"input_ids": row.tolist(), "labels": (row % 3).tolist()} for row in rows]


class Accuracy:
    """A metrics computer that records its calls."""

    def __init__(self):
        self.outputs, self.inputs, self.computed = [], [], 0

    def prepare_batch(self, model_output, input_batch):
        self.outputs.append(model_output)
        self.inputs.append(input_batch)
        return {"predicted": model_output["logits"].argmax(-1), "true": input_batch["y"].tolist()}

    def compute(self, all_data):
        self.computed += 1
        pairs = zip(all_data["predicted"], all_data["true"], strict=True)
        return {"accuracy": float(np.mean([int(a) == b for a, b in pairs]))}


class Events:
    """A callback that records every event with its arguments."""

    def __init__(self):
        self.seen = []

    def __getattr__(self, name):
        if not name.startswith("on_"):
            raise AttributeError(name)

        def note(*args, **kwargs):
            self.seen.append((name, args, kwargs))

        return note


def make(folder, component=None, *, options=None, train=DATA, evaluated=DATA[:20], **settings):
    """Return a trainer with a short configuration; `settings` are fields and arguments."""
    arguments = ("metrics_computer", "lr_scheduler_builder", "callback", "mesh")
    others = {name: settings.pop(name) for name in arguments if name in settings}
    kind = settings.pop("kind", Trainer)
    fields = {
        "learning_rate": 1e-2,
        "nb_training_epochs": 3,
        "batch_size": 8,
        "seed": 3,
        **settings,
    }
    config = TrainerConfig(output_dir=folder, **fields)
    others.setdefault("callback", [])
    return kind(
        component or Classifier(), config, train, evaluated, options=options or Options(), **others
    )


def weights(component):
    return {name: value.clone() for name, value in component.model.state_dict().items()}


def same(first, second):
    """Return whether two sets of weights are equal bit for bit."""
    return first.keys() == second.keys() and all(torch.equal(first[n], second[n]) for n in first)
