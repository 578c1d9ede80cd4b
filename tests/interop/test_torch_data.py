"""torch's datasets and DataLoaders: order, workers, grouping, padding, arrays."""

import numpy as np
import pytest
import torch
from torch.utils.data import ConcatDataset, DataLoader, IterableDataset, Subset
from trained import DATA, Classifier, Tagger, make, sentences

from medjax.data import epoch_order
from medjax_torch import BatchData, Options
from medjax_torch.batches import Padder, ShapeCount, epoch_batches, to_arrays, to_tensors
from medjax_torch.batches.sampler import medkit_order


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


def test_medkits_order_is_that_of_torchs_loaders():
    torch.manual_seed(11)
    train = DataLoader(range(10), batch_size=4, shuffle=True)
    evaluated = DataLoader(range(6), batch_size=4)
    for epoch in (1, 2, 3):
        order = torch.cat(list(train)).tolist()
        assert medkit_order(11, epoch, 10).tolist() == order
        list(evaluated)


def test_passing_over_the_data_draws_nothing_from_torch(tmp_path):
    trainer = make(tmp_path)
    before = torch.get_rng_state()
    list(epoch_batches(trainer.train_dataloader, 1))
    next(iter(trainer.eval_dataloader))
    assert torch.equal(before, torch.get_rng_state())


def test_batches_of_similar_length_are_a_function_of_seed_and_epoch(tmp_path):
    data = sentences(40)
    options = Options(length_window=3)
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


def test_data_without_a_length_or_items(tmp_path):
    with pytest.raises(ValueError, match="has no items"):
        make(tmp_path, train=[])
    with pytest.raises(ValueError, match="expected an object with __len__"):
        make(tmp_path, train=iter(DATA))
    with pytest.raises(ValueError, match="without a length"):
        make(tmp_path, train=Stream(0))
    with pytest.raises(ValueError, match="yielded 24 items, and its length is 30"):
        make(tmp_path, train=Stream(30)).train()


def test_a_loader_of_the_users_own(tmp_path):
    from medjax_torch import Trainer

    class Weighted(Trainer):
        def get_dataloader(self, data, shuffle):
            sampler = torch.utils.data.WeightedRandomSampler([1.0] * len(data), 16)
            collate = self.component.collate
            return DataLoader(data, batch_size=4, sampler=sampler, collate_fn=collate)

    trainer = make(tmp_path, kind=Weighted, nb_training_epochs=1)
    assert len(trainer.train_dataloader) == 4
    assert np.isfinite(trainer.train()[0]["train"]["loss"])


def test_workers_are_spawned_and_change_nothing(tmp_path):
    given = {"nb_training_epochs": 1, "evaluated": DATA[:8], "train": DATA[:16]}
    alone = make(tmp_path / "alone", **given)
    helped = make(tmp_path / "helped", dataloader_nb_workers=1, **given)
    assert helped.train_dataloader.multiprocessing_context.get_start_method() == "spawn"
    assert alone.train() == helped.train()


def test_what_workers_cannot_get_is_named(tmp_path):
    component = Classifier()
    component.clean = lambda text: text
    with pytest.raises(ValueError, match="the component, a Classifier, cannot be sent to worker"):
        make(tmp_path, component, dataloader_nb_workers=1)


def test_collate_must_return_columns(tmp_path):
    class Tuples(Classifier):
        def collate(self, examples):
            return tuple(examples)

    with pytest.raises(ValueError, match="collate returned a tuple; expected a BatchData"):
        make(tmp_path, Tuples()).train()


def test_padding_follows_the_names_of_hugging_face():
    class Columns(BatchData):
        pass

    ids = torch.ones(2, 5, dtype=torch.int64)
    batch = Columns(input_ids=ids, labels=ids, token_type_ids=torch.zeros(2), other=ids)
    padder = Padder(Options(length_ladder=(4, 8)))
    assert (padder.length(batch), padder.rung(5), padder.rung(9)) == (5, 8, None)
    padded = padder.pad_to(batch, 8)
    assert type(padded) is Columns
    assert padded["labels"][0].tolist() == [1] * 5 + [-100] * 3
    assert padded["input_ids"][0].tolist() == [1] * 5 + [0] * 3
    assert padded["other"] is ids
    assert batch["labels"].shape == (2, 5)
    mine = Padder(Options(padding={"other": 7, "labels": None})).pad_to(batch, 6)
    assert mine["other"][0].tolist() == [1] * 5 + [7]
    assert mine["labels"] is ids


def test_arrays_share_no_memory_and_integers_fit():
    columns = {
        "a": torch.arange(3),
        "b": torch.rand(2).double(),
        "c": torch.ones(2, dtype=torch.bfloat16),
    }
    arrays = to_arrays(columns)
    assert [str(array.dtype) for array in arrays.values()] == ["int32", "float32", "bfloat16"]
    columns["a"].add_(5)
    assert arrays["a"].tolist() == [0, 1, 2]
    back = to_tensors(list(arrays.values()), [torch.int64, torch.float64, torch.bfloat16])
    assert back[0].dtype == torch.int64
    back[0].add_(1)
    assert arrays["a"].tolist() == [0, 1, 2]
    with pytest.raises(ValueError, match="column 'big' holds 8589934597"):
        to_arrays({"big": torch.tensor([2**33 + 5])})
    with pytest.raises(ValueError, match="expected a dense one"):
        to_arrays({"s": torch.eye(2).to_sparse()})


def test_many_shapes_are_warned_of_once_and_stopped(caplog):
    count = ShapeCount(18)
    for length in range(1, 19):
        count.add({"x": torch.zeros(length), "y": torch.zeros(2)})
    assert len(count) == 18
    assert len([r for r in caplog.records if r.name == "medjax"]) == 1
    with pytest.raises(ValueError, match=r"new shape after 18 others: column 'x' \(19,\)"):
        count.add({"x": torch.zeros(19), "y": torch.zeros(2)})
