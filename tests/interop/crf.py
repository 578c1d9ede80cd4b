"""A tagger with a typical linear-chain CRF: Python loops, and tags as lists of strings."""

import torch
from torch import nn
from trained import Tagger

from medjax_torch import BatchData

TAGS = ("O", "B", "I")


class CrfTagger(Tagger):
    """Emissions from an embedding, transitions, the forward algorithm and the Viterbi algorithm.

    Parameters
    ----------
    decodes_in_training : bool
        Whether training decodes too, as in a forward that ignores `eval_mode`.
    """

    def __init__(self, decodes_in_training=False):
        super().__init__()
        self.transitions = nn.Parameter(
            torch.randn(3, 3, generator=torch.Generator().manual_seed(0))
        )
        self.decodes_in_training = decodes_in_training

    def configure_optimizer(self, lr):
        return torch.optim.AdamW([*self.model.parameters(), self.transitions], lr=lr)

    def forward(self, batch, return_loss, eval_mode):
        self.model.train(not eval_mode)
        emissions = self.model(batch["input_ids"])
        mask = batch["labels"] != -100
        loss = (
            self.partition(emissions, mask) - self.score(emissions, batch["labels"], mask)
        ).mean()
        outputs = {}
        if eval_mode or self.decodes_in_training:
            outputs["tags"] = self.decode(emissions, mask)
        return BatchData(**outputs), loss

    def partition(self, emissions, mask):
        alpha = emissions[:, 0]
        for step in range(1, emissions.shape[1]):
            scores = alpha[:, :, None] + self.transitions + emissions[:, step, None, :]
            alpha = torch.where(mask[:, step, None], torch.logsumexp(scores, 1), alpha)
        return torch.logsumexp(alpha, 1)

    def score(self, emissions, labels, mask):
        safe = labels.clamp(min=0)
        picked = emissions.gather(2, safe[:, :, None]).squeeze(2) * mask
        moved = self.transitions[safe[:, :-1], safe[:, 1:]] * mask[:, 1:]
        return picked.sum(1) + moved.sum(1)

    def decode(self, emissions, mask):
        lengths = mask.sum(1).tolist()
        decoded = []
        for row, length in zip(emissions, lengths, strict=True):
            best, history = row[0], []
            for step in range(1, length):
                scores, before = (best[:, None] + self.transitions).max(0)
                best = scores + row[step]
                history.append(before)
            path = [int(best.argmax())]
            for before in reversed(history):
                path.append(before[path[-1]].item())
            decoded.append([TAGS[tag] for tag in reversed(path)])
        return decoded


class TagAccuracy:
    """Computes the share of correct tags, from lists of strings."""

    def __init__(self):
        self.outputs = []

    def prepare_batch(self, model_output, input_batch):
        self.outputs.append(model_output)
        true = [[TAGS[tag] for tag in row.tolist() if tag != -100] for row in input_batch["labels"]]
        return {"predicted": model_output["tags"], "true": true}

    def compute(self, all_data):
        pairs = [
            (a, b)
            for one, other in zip(all_data["predicted"], all_data["true"], strict=True)
            for a, b in zip(one, other, strict=True)
        ]
        return {"accuracy": sum(a == b for a, b in pairs) / len(pairs)}
