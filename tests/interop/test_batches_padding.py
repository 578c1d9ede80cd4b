"""Padding torch batches to few shapes, and counting the shapes that remain."""

import collections
import warnings

import pytest
import torch

from medjax_torch.batches import Padder, ShapeCount, padding_rules

PADDER = Padder(padding_rules({}), (4, 8))


class Columns(dict):
    """Cannot be made from a dict."""

    def __init__(self, *, origin):
        self.origin = origin


class User(collections.UserDict):
    pass


def tokens(length, rows=2, **columns):
    ones = torch.ones(rows, length, dtype=torch.int64)
    return {"input_ids": ones, "attention_mask": ones.bool(), "labels": 7 * ones, **columns}


def test_columns_are_padded_to_the_next_length_with_their_fills():
    batch = tokens(3, text=["a", "b"], boxes=torch.ones(2, 3, 4))
    padder = Padder(padding_rules({"boxes": 0.5}), (4, 8))
    padded = padder.pad(batch)
    assert (padded.length, padded.padded_length) == (3, 4)
    assert padded.columns == ("input_ids", "attention_mask", "labels", "boxes")
    fills = {"input_ids": 0, "attention_mask": False, "labels": -100, "boxes": 0.5}
    for name, fill in fills.items():
        column, original = padded.batch[name], batch[name]
        assert column.dtype == original.dtype
        assert torch.equal(column[:, :3], original)
        assert (column[:, 3:] == fill).all()
        assert column.shape[1] == 4
        assert original.shape[1] == 3
    assert padded.batch["text"] is batch["text"]


@pytest.mark.parametrize(
    ("labels", "size"),
    [
        (torch.ones(2, 3, dtype=torch.int32), 4),
        (torch.ones(2, dtype=torch.int64), None),
        (torch.ones(2, 5, dtype=torch.int64), 5),  # one for each class
        (torch.ones(2, 3), 3),
    ],
)
def test_labels_are_padded_where_they_are_one_for_each_token(labels, size):
    padded = PADDER.pad(tokens(3, labels=labels)).batch
    assert padded["input_ids"].shape == (2, 4)
    assert padded["labels"].shape == ((2,) if size is None else (2, size))


def test_a_user_may_add_change_and_drop_columns():
    padder = Padder(padding_rules({"words": 9, "labels": None, "input_ids": 5}), (4,))
    padded = padder.pad({"words": torch.ones(1, 3), **tokens(3)}).batch
    assert padded["words"].tolist() == [[1, 1, 1, 9]]
    assert padded["input_ids"][0].tolist() == [1, 1, 1, 5]
    assert padded["labels"].shape == (2, 3)
    # A user's column sets the length, though it comes after the labels.
    alone = {"words": torch.ones(1, 3), "labels": torch.ones(1, 2, dtype=torch.int64)}
    padded = Padder(padding_rules({"words": 9}), (4,)).pad(alone).batch
    assert (padded["words"].shape, padded["labels"].shape) == ((1, 4), (1, 2))


def test_the_batch_itself_comes_back_where_there_is_nothing_to_pad():
    images = {"pixel_values": torch.ones(2, 3, 5, 5), "labels": torch.ones(2, 3, dtype=torch.int64)}
    ragged_lists = {"input_ids": [[1], [2, 3]]}
    for batch, length in ((images, 0), (ragged_lists, 0), (tokens(4), 4), (tokens(0), 0)):
        padded = PADDER.pad(batch)
        assert padded.batch is batch
        assert (padded.length, padded.padded_length, padded.beyond_ladder) == (
            length,
            length,
            False,
        )


def test_a_batch_beyond_the_ladder_is_left_and_reported():
    batch = tokens(9)
    padded = PADDER.pad(batch)
    assert padded.batch is batch
    assert (padded.length, padded.padded_length, padded.beyond_ladder) == (9, 9, True)


def test_a_batch_is_padded_to_any_length_that_is_asked_for():
    assert PADDER.pad_to(tokens(9), 11).batch["input_ids"].shape == (2, 11)
    with pytest.raises(ValueError, match=r"columns of length 9; expected at most 8"):
        PADDER.pad_to(tokens(9), 8)


def test_the_type_and_what_else_a_batch_holds_are_kept():
    with_attribute = Columns(origin="ward 3")
    with_attribute.update(tokens(3))
    padded = PADDER.pad(with_attribute).batch
    assert type(padded) is Columns
    assert padded.origin == "ward 3"
    for batch in (with_attribute, User(tokens(3)), collections.OrderedDict(tokens(3))):
        padded = PADDER.pad(batch).batch
        assert type(padded) is type(batch)
        assert (padded["labels"].shape, batch["labels"].shape) == ((2, 4), (2, 3))


def test_a_batch_encoding_stays_one():
    transformers = pytest.importorskip("transformers")
    batch = transformers.BatchEncoding(tokens(3))
    padded = PADDER.pad(batch).batch
    assert type(padded) is transformers.BatchEncoding
    assert padded.input_ids.shape == (2, 4)
    assert batch.input_ids.shape == (2, 3)


def test_medkits_batch_data_stays_one():
    training = pytest.importorskip("medkit.training")
    batch = training.BatchData(tokens(3))
    padded = PADDER.pad(batch).batch
    assert type(padded) is training.BatchData
    assert padded[0]["input_ids"].tolist() == [1, 1, 1, 0]
    assert batch[0]["input_ids"].tolist() == [1, 1, 1]


class Pairs(collections.abc.Mapping):
    """Takes a dict for a pair."""

    def __init__(self, *pairs):
        self.pairs = pairs

    def __getitem__(self, name):
        return dict(self.pairs)[name]

    def __iter__(self):
        return iter(dict(self.pairs))

    def __len__(self):
        return len(self.pairs)


def test_what_cannot_be_padded_is_an_error():
    with pytest.raises(ValueError, match=r"'labels' is of torch.uint8, which cannot hold -100"):
        PADDER.pad(tokens(3, labels=torch.ones(2, 3, dtype=torch.uint8)))
    with pytest.raises(TypeError, match=r"the batch is a Pairs, which cannot be made from a"):
        PADDER.pad(Pairs(*tokens(3).items()))


def test_shapes_are_counted_and_many_of_them_are_told_once():
    count = ShapeCount(limit=6, warn_after=2)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert [count.add(tokens(length)) for length in (3, 4, 3)] == [True, True, False]
    with pytest.warns(
        UserWarning,
        match=r"3 shapes so far: column 'input_ids': \(2, 3\) int64, \(2, 4\) int64, \(2, 5\) "
        r"int64; .*Options\(padding=",
    ):
        count.add(tokens(5))
    for length in (6, 7, 8):
        count.add(tokens(length))
    assert len(count) == 6
    with pytest.raises(
        ValueError,
        match=r"a new shape after 6 others: .*\(2, 5\) int64, \.\.\.;.* raise max_shapes",
    ):
        count.add(tokens(9))
    assert not count.add(tokens(3))


def test_constants_and_names_that_vary_are_told():
    count = ShapeCount(limit=2)
    ids = torch.ones(1, 2)
    count.add({"ids": ids, "document": "a"})
    count.add({"ids": ids, "document": "b"})
    with pytest.raises(ValueError, match=r"column 'document': the constant 'a', the constant 'b'"):
        count.add({"ids": ids, "document": "c"})
    count = ShapeCount(limit=1)
    count.add({"ids": ids})
    with pytest.raises(ValueError, match=r"the names of the columns differ"):
        count.add({"ids": ids, "more": ids})
