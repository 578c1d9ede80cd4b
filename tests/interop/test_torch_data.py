"""Training on all kinds of torch datasets and DataLoaders, in every order."""

import json

import numpy as np
import pytest
import torch
from torch.utils.data import ConcatDataset, DataLoader, IterableDataset, Subset
from trained import DATA, Classifier, Tagger, make, sentences

from medjax.data import epoch_order
from medjax_torch import Options, Trainer
from medjax_torch.batches import epoch_batches


def orders(trainer, epoch, start=0):
    return [
        indices.tolist() for indices, _ in epoch_batches(trainer.train_dataloader, epoch, start)
    ]


def test_the_order_is_a_function_of_seed_and_epoch(tmp_path):
    trainer = make(tmp_path)
    assert isinstance(trainer.train_dataloader, DataLoader)
    assert np.concatenate(orders(trainer, 2)).tolist() == epoch_order(3, 2, 44).tolist()
    assert orders(trainer, 2, start=3) == orders(trainer, 2)[3:]
    batches = [batch for _, batch in epoch_batches(trainer.train_dataloader, 2)]
    expected = torch.stack([DATA[index]["x"] for index in orders(trainer, 2)[1]])
    assert torch.equal(batches[1]["x"], expected)


def test_batches_of_similar_length_are_a_function_of_seed_and_epoch(tmp_path):
    data = sentences(40)
    options = Options(length_window=3, length_ladder=range(1, 41))
    first, second = (
        make(tmp_path, Tagger(), train=data, evaluated=data, batch_size=4, options=options)
        for _ in range(2)
    )
    list(epoch_batches(first.train_dataloader, 1))  # measures all lengths
    for start in (0, 4):
        assert orders(first, 2, start) == orders(second, 2)[start:]
    widths = [batch["input_ids"].shape[1] for _, batch in epoch_batches(first.train_dataloader, 2)]
    plain = make(tmp_path, Tagger(), train=data, evaluated=data, batch_size=4)
    others = [batch["input_ids"].shape[1] for _, batch in epoch_batches(plain.train_dataloader, 2)]
    assert sum(widths) < sum(others)


def test_a_resumed_run_keeps_the_ladder_of_its_checkpoint(tmp_path, monkeypatch):
    def run(epochs, resume=None):
        trainer = make(
            tmp_path,
            Tagger(),
            train=sentences(40),
            evaluated=sentences(9),
            batch_size=4,
            nb_training_epochs=epochs,
        )
        trainer.train(resume=resume)
        record = json.loads((trainer.last_checkpoint / "training_state.json").read_text())
        return record["progress"]["ladders"]

    saved = run(1)
    assert set(saved) == {"train", "eval"}
    monkeypatch.setattr("medjax_torch.session.ladders.fit_lengths", None)  # nothing is fitted again
    assert run(2, resume="auto") == saved


class Stream(IterableDataset):
    def __init__(self, length):
        self.length = length

    def __len__(self):
        return self.length

    def __iter__(self):
        return iter(DATA[:24])


@pytest.mark.parametrize(
    "data",
    [Subset(DATA, range(20)), ConcatDataset([DATA[:10], DATA[10:20]]), DATA[:20], Stream(24)],
    ids=["Subset", "ConcatDataset", "list", "IterableDataset"],
)
def test_kinds_of_datasets(tmp_path, data):
    history = make(tmp_path, train=data, nb_training_epochs=2).train()
    assert history[1]["train"]["loss"] < history[0]["train"]["loss"]


def test_a_stream_that_ends_before_its_length_is_an_error(tmp_path):
    with pytest.raises(ValueError, match="has length 30 but ends after 24"):
        make(tmp_path, train=Stream(30)).train()


def test_a_users_own_loader(tmp_path):
    class Weighted(Trainer):
        def get_dataloader(self, data, shuffle):
            sampler = torch.utils.data.WeightedRandomSampler([1.0] * len(data), 16)
            collate = self.component.collate
            return DataLoader(data, batch_size=4, sampler=sampler, collate_fn=collate)

    trainer = make(tmp_path, kind=Weighted, nb_training_epochs=1)
    assert len(trainer.train_dataloader) == 4
    assert np.isfinite(trainer.train()[0]["train"]["loss"])


def test_workers_are_spawned_and_change_nothing(tmp_path):
    settings = {"nb_training_epochs": 1, "evaluated": DATA[:8], "train": DATA[:16]}
    alone = make(tmp_path / "alone", **settings)
    helped = make(tmp_path / "helped", dataloader_nb_workers=1, **settings)
    assert helped.train_dataloader.multiprocessing_context.get_start_method() == "spawn"
    assert alone.train() == helped.train()


def test_objects_that_workers_cannot_get_are_named(tmp_path):
    component = Classifier()
    component.clean = lambda text: text
    with pytest.raises(ValueError, match="the component, a Classifier, cannot be sent to worker"):
        make(tmp_path, component, dataloader_nb_workers=1)


def test_collate_must_return_columns(tmp_path):
    class Tuples(Classifier):
        def collate(self, examples):
            return tuple(examples)

    with pytest.raises(TypeError, match="collate returned a tuple; expected a mapping"):
        make(tmp_path, Tuples()).train()
