"""Columns of the batch that forward writes to in place, as a metrics computer gets them."""

import pytest
import torch
from torch.nn import functional as F
from trained import Tagger, make, sentences

from medjax_torch import BatchData


class Masking(Tagger):
    """Leaves padding out of the labels within forward."""

    def __init__(self, *, by_numpy=False):
        super().__init__()
        self.by_numpy = by_numpy

    def collate(self, examples):
        batch = super().collate(examples)
        batch["attention_mask"] = (batch["labels"] >= 0).long()
        batch["kept"] = {"counts": torch.zeros(len(examples))}
        batch["labels"] = batch["labels"].clamp(min=0)
        return batch

    def forward(self, batch, return_loss, eval_mode):
        batch["labels"][batch["attention_mask"] == 0] = -100
        batch["kept"]["counts"] += (batch["labels"] >= 0).sum(1)
        outputs, _ = super().forward(batch, return_loss, eval_mode)
        logits = outputs["logits"]
        if self.by_numpy:
            outputs["names"] = [f"tag {n}" for n in logits.detach().numpy().argmax(-1)[:, 0]]
        return outputs, F.cross_entropy(logits.mT, batch["labels"])


class Counting:
    """Scores what the labels say by then."""

    def prepare_batch(self, model_output, input_batch):
        assert set(model_output) <= {"logits", "names"}
        assert isinstance(input_batch, BatchData)
        wanted = input_batch["labels"]
        found = (model_output["logits"].argmax(-1) == wanted)[wanted >= 0]
        return {"found": found.tolist(), "counts": input_batch["kept"]["counts"].tolist()}

    def compute(self, all_data):
        return {
            "labels": len(all_data["found"]),
            "accuracy": sum(all_data["found"]) / len(all_data["found"]),
            "counted": sum(all_data["counts"]),
        }


@pytest.mark.parametrize("by_numpy", [False, True], ids=["in JAX", "in torch"])
def test_metrics_get_what_forward_has_written(tmp_path, by_numpy, caplog):
    data, component = sentences(10), Masking(by_numpy=by_numpy)
    settings = {"batch_size": 4, "nb_training_epochs": 2, "metrics_computer": Counting()}
    if not by_numpy:
        settings["do_metrics_in_training"] = True
    history = make(tmp_path, component, train=data, evaluated=data, **settings).train()
    assert "exact shapes" not in caplog.text
    nb_labels = sum(len(each["labels"]) for each in data)
    for row in history:
        for phase in ["eval"] if by_numpy else ["train", "eval"]:
            assert (row[phase]["labels"], row[phase]["counted"]) == (nb_labels, nb_labels)
    batches = [component.collate(data[first : first + 4]) for first in range(0, 10, 4)]
    columns = [Counting().prepare_batch(component.forward(b, True, True)[0], b) for b in batches]
    found = [each for column in columns for each in column["found"]]
    assert history[-1]["eval"]["accuracy"] == sum(found) / nb_labels


def test_a_batch_without_labels_that_count_is_told(tmp_path, caplog):
    data = [{"input_ids": [n + 1] * 5, "labels": [-100] * 5} for n in range(4)] + sentences(8)
    for given, told in ((data, 1), (data[4:], 0)):
        caplog.clear()
        trainer = make(tmp_path / str(told), Tagger(), train=given, evaluated=given, batch_size=1)
        trainer.train()
        assert caplog.text.count("a batch has no label that counts") == told
