"""Dropout that is left on in evaluation."""

import pytest
import torch
from torch import nn
from trained import DATA, Classifier, make

from medjax_torch import BatchData


class Dropping(Classifier):
    """Drops out in evaluation, too, and returns the mask."""

    def __init__(self, *, as_text):
        super().__init__()
        self.drop, self.as_text = nn.Dropout(0.5), as_text

    def forward(self, batch, return_loss, eval_mode):
        self.drop.train()
        outputs, loss = super().forward(batch, return_loss, eval_mode)
        mask = self.drop(torch.ones(32)).expand(len(batch["x"]), 32)
        if eval_mode and self.as_text:
            texts = [" ".join(map(str, row.tolist())) for row in mask]
            return BatchData(outputs, mask=texts), loss  # evaluated in torch
        return BatchData(outputs, mask=mask), loss


class Masks:
    """Collects the masks of an evaluation."""

    def __init__(self):
        self.seen = []

    def prepare_batch(self, model_output, input_batch):
        self.seen.append(str(model_output["mask"][0]))
        return {"n": [0]}

    def compute(self, all_data):
        return {"n": 0}


@pytest.mark.parametrize("as_text", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_each_batch_has_a_mask_of_its_own(tmp_path, as_text):
    masks = Masks()
    make(
        tmp_path,
        Dropping(as_text=as_text),
        nb_training_epochs=2,
        evaluated=DATA[:24],
        metrics_computer=masks,
    ).train()
    first, second = masks.seen[:3], masks.seen[3:]
    assert len(set(first)) == 3
    assert first == second
