"""Components whose batches vary in size, and their data."""

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F
from trained import Classifier

from medjax_torch import BatchData


class Texts(Classifier):
    """Classifies texts into three classes; ``pooled`` pools the embeddings."""

    def __init__(self, pooled, **content):
        super().__init__(torch.optim.SGD)
        torch.manual_seed(1)
        self.pooled = pooled
        content = {name: make() for name, make in content.items()}
        self.model = nn.ModuleDict(
            {"embed": nn.Embedding(20, 8, padding_idx=0), "head": nn.Linear(8, 3), **content}
        )

    def collate(self, examples):
        ids = [torch.tensor(example["input_ids"]) for example in examples]
        return BatchData(
            input_ids=nn.utils.rnn.pad_sequence(ids, batch_first=True),
            classes=torch.tensor([example["class"] for example in examples]),
        )

    def forward(self, batch, return_loss, eval_mode):
        self.model.train(not eval_mode)
        logits = self.model["head"](self.pooled(self.model, batch["input_ids"]))
        return BatchData(logits=logits), F.cross_entropy(logits, batch["classes"])


def summed(model, ids):
    return model["hidden"](model["embed"](ids)).relu().sum(1)


def largest(model, ids):
    return model["hidden"](model["embed"](ids)).relu().amax(1)


def gated(model, ids):
    hidden = model["embed"](ids)
    read, _ = model["lstm"](hidden)
    return (hidden + model["gate"].weight * read).sum(1)


def without_bias():
    layer = nn.Linear(8, 8)
    nn.init.zeros_(layer.bias)
    return layer


def both_ways():
    return nn.LSTM(8, 4, bidirectional=True, batch_first=True)


class Gate(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(()))


def texts(count=24, lengths=(2, 30)):
    draw = np.random.default_rng(0)
    rows = [draw.integers(1, 20, draw.integers(*lengths)).tolist() for _ in range(count)]
    return [{"input_ids": row, "class": sum(row) % 3} for row in rows]


class Pairs(Classifier):
    """Relations between the four entities of a text; their number varies.

    ``mean`` ignores what is padded by collate to `padded` pairs, ``plain`` does not.
    """

    def __init__(self, padded=0, mean="ignoring"):
        super().__init__(torch.optim.SGD)
        torch.manual_seed(1)
        self.padded, self.mean = padded, mean
        self.model = nn.ModuleDict(
            {"embed": nn.Embedding(20, 8), "scale": nn.Linear(2, 8), "head": nn.Linear(16, 3)}
        )

    def collate(self, examples):
        pairs, features, labels = [], [], []
        for row, example in enumerate(examples):
            for first, second, label in example["pairs"]:
                pairs.append((4 * row + first, 4 * row + second))
                features.append((first / 4, second / 4))
                labels.append(label)
        extra = max(0, self.padded - len(labels))
        return BatchData(
            entities=torch.tensor([example["entities"] for example in examples]),
            pairs=torch.tensor(pairs + [(0, 0)] * extra),
            pair_features=torch.tensor(features + [(0.0, 0.0)] * extra),
            pair_labels=torch.tensor(labels + [-100] * extra),
        )

    def forward(self, batch, return_loss, eval_mode):
        self.model.train(not eval_mode)
        entities = self.model["embed"](batch["entities"]).flatten(0, 1)
        hidden = entities[batch["pairs"]].flatten(1)
        scale = self.model["scale"](batch["pair_features"]).repeat(1, 2)
        logits = self.model["head"](torch.tanh(hidden + scale))
        if self.mean == "ignoring":
            loss = F.cross_entropy(logits, batch["pair_labels"])
        else:
            loss = logits.logsumexp(1).mean()
        return BatchData(logits=logits), loss


def relations(count=24, most=10):
    draw = np.random.default_rng(0)
    return [
        {
            "entities": draw.integers(0, 20, 4).tolist(),
            "pairs": draw.integers(0, [4, 4, 3], (draw.integers(1, most + 1), 3)).tolist(),
        }
        for _ in range(count)
    ]
