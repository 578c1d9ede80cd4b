"""Workers of torch components get what callbacks have changed since the last epoch."""

import multiprocessing

import pytest
import torch
from torch import nn
from trained import DATA, Classifier, make

from medjax.callbacks import TrainerCallback
from medjax.data.digests import digest_of
from medjax_torch.batches.digests import WithoutWeights


class Scaled(Classifier):
    scale = 1.0

    def preprocess(self, item):
        return {**item, "x": item["x"] * self.scale}


class Shifted(torch.utils.data.Dataset):
    shift = 0.0

    def __len__(self):
        return 16

    def __getitem__(self, index):
        return {**DATA[index], "x": DATA[index]["x"] + self.shift}


class AtEachEpoch(TrainerCallback):
    def __init__(self, holder, name):
        self.holder, self.name, self.workers = holder, name, []

    def on_epoch_begin(self, epoch):
        self.workers.append({process.pid for process in multiprocessing.active_children()})
        if self.name:
            setattr(self.holder, self.name, float(epoch))


def run(folder, component, data, holder, name, *, workers, epochs=2):
    callback = AtEachEpoch(holder, name)
    trainer = make(
        folder,
        component,
        train=data,
        evaluated=DATA[:8],
        callback=callback,
        nb_training_epochs=epochs,
        dataloader_nb_workers=workers,
    )
    return trainer.train(), callback.workers


@pytest.mark.parametrize("name", ["scale", pytest.param("shift", marks=pytest.mark.slow)])
def test_what_a_callback_sets_reaches_the_workers(tmp_path, name):
    histories = []
    for workers in (0, 1):
        component, data = Scaled(), Shifted()
        holder = component if name == "scale" else data
        folder = tmp_path / str(workers)
        histories.append(run(folder, component, data, holder, name, workers=workers)[0])
    assert histories[0] == histories[1]


def test_workers_keep_running_while_only_the_weights_change(tmp_path):
    _, workers = run(tmp_path, Classifier(), DATA[:16], None, None, workers=1, epochs=3)
    assert len(workers[1]) == 2  # one for training, one for evaluation
    assert workers[1] == workers[2]


def test_the_digest_leaves_out_weights_and_sees_everything_else():
    model = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3))
    model.rate = 0.5

    def digest():
        return digest_of(model, WithoutWeights)

    before = digest()
    model.eval()
    model[0].weight.requires_grad_(False).fill_(3.0)
    assert digest() == before
    model.rate = 0.6
    assert digest() != before
    model.rate = 0.5
    model[1].running_mean.fill_(2.0)
    assert digest() != before
    kinds = [torch.ones((), dtype=torch.bfloat16), torch.eye(2).to_sparse(), torch.tensor([1j])]
    kinds += [torch.ones(2, device="meta"), torch.tensor([1j]).conj()]
    assert len({digest_of(kind, WithoutWeights) for kind in kinds}) == len(kinds)
