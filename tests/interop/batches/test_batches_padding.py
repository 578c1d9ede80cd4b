"""Padding torch batches to few shapes, guessing what may be padded, and counting shapes."""

import collections
import warnings

import pytest
import torch

from medjax_torch.batches import ShapeCount, padding_rules
from medjax_torch.batches.guesses import Guesses
from medjax_torch.batches.padding import ROWS, Ragged, resized

TOKENS = Ragged(
    (("input_ids", 1), ("attention_mask", 1), ("labels", 1)),
    {"input_ids": 0, "attention_mask": 0, "labels": -100},
    (4, 8),
)


class Columns(dict):
    """A mapping that cannot be constructed from a dict."""

    def __init__(self, *, origin):
        self.origin = origin


class User(collections.UserDict):
    pass


def tokens(length, rows=2, **columns):
    ones = torch.ones(rows, length, dtype=torch.int64)
    return {"input_ids": ones, "attention_mask": ones.bool(), "labels": 7 * ones, **columns}


def padded(batch, ragged=TOKENS):
    return resized(batch, [(ragged, ragged.rung(ragged.size(batch)))])


def test_axes_are_padded_to_the_next_size_with_their_fills():
    batch = tokens(3, text=["a", "b"], boxes=torch.ones(2, 3, 4))
    ragged = Ragged((*TOKENS.column_axes, ("boxes", 1)), {**TOKENS.fills, "boxes": 0.5}, (4, 8))
    longer = padded(batch, ragged)
    fills = {"input_ids": 0, "attention_mask": False, "labels": -100, "boxes": 0.5}
    for name, fill in fills.items():
        column, original = longer[name], batch[name]
        assert column.dtype == original.dtype
        assert torch.equal(column[:, :3], original)
        assert (column[:, 3:] == fill).all()
        assert column.shape[1] == 4
        assert original.shape[1] == 3
    assert longer["text"] is batch["text"]


def test_several_axes_of_a_column_are_padded_repeated_and_cropped():
    links = torch.arange(9).reshape(1, 3, 3)
    square = Ragged((("links", 1), ("links", 2)), {"links": -1}, (5,))
    longer = padded({"links": links}, square)["links"]
    assert longer.shape == (1, 5, 5)
    assert torch.equal(longer[:, :3, :3], links)
    assert (longer[:, 3:] == -1).all()
    assert (longer[:, :, 3:] == -1).all()
    assert torch.equal(resized({"links": longer}, [(square, 3)])["links"], links)
    rows = Ragged((("links", 1),), {"links": None}, ROWS)
    assert padded({"links": links}, rows)["links"][0, 2:].tolist() == 30 * [[6, 7, 8]]


def test_the_batch_itself_is_returned_if_there_is_nothing_to_pad():
    for batch, length in ((tokens(4), 4), (tokens(0), 0), (tokens(9), 9)):
        assert TOKENS.rung(length) == length
        assert padded(batch) is batch


def test_the_type_and_other_columns_of_a_batch_are_kept():
    with_attribute = Columns(origin="ward 3")
    with_attribute.update(tokens(3))
    longer = padded(with_attribute)
    assert type(longer) is Columns
    assert longer.origin == "ward 3"
    for batch in (with_attribute, User(tokens(3)), collections.OrderedDict(tokens(3))):
        longer = padded(batch)
        assert type(longer) is type(batch)
        assert (longer["labels"].shape, batch["labels"].shape) == ((2, 4), (2, 3))


def test_a_batch_encoding_stays_one():
    transformers = pytest.importorskip("transformers")
    batch = transformers.BatchEncoding(tokens(3))
    longer = padded(batch)
    assert type(longer) is transformers.BatchEncoding
    assert longer.input_ids.shape == (2, 4)
    assert batch.input_ids.shape == (2, 3)


def test_medkits_batch_data_stays_one():
    training = pytest.importorskip("medkit.training")
    batch = training.BatchData(tokens(3))
    longer = padded(batch)
    assert type(longer) is training.BatchData
    assert longer[0]["input_ids"].tolist() == [1, 1, 1, 0]
    assert batch[0]["input_ids"].tolist() == [1, 1, 1]


class Pairs(collections.abc.Mapping):
    """A mapping whose constructor interprets a dict as a pair."""

    def __init__(self, *pairs):
        self.pairs = pairs

    def __getitem__(self, name):
        return dict(self.pairs)[name]

    def __iter__(self):
        return iter(dict(self.pairs))

    def __len__(self):
        return len(self.pairs)


def test_batches_that_cannot_be_padded_are_refused():
    with pytest.raises(
        ValueError,
        match=r"'labels' has dtype torch.uint8, which cannot hold its padding value -100",
    ):
        padded(tokens(3, labels=torch.ones(2, 3, dtype=torch.uint8)))
    with pytest.raises(TypeError, match=r"the batch is a Pairs, which cannot be constructed"):
        padded(Pairs(*tokens(3).items()))


def guessed(batch, padding=None, without=()):
    return list(Guesses(padding or {}, (4, 8)).of_length(batch, set(without)))


def columns_of(ragged):
    return {*ragged.column_axes}


TOKEN_AXES = {("input_ids", 1), ("attention_mask", 1)}


@pytest.mark.parametrize(
    ("labels", "fill"),
    [
        (torch.ones(2, 3, dtype=torch.int32), -100),
        (torch.ones(2, 3), -100),
        (torch.ones(2, 3, dtype=torch.bool), 0),
        (torch.ones(2, dtype=torch.int64), None),
        (torch.ones(2, 5, dtype=torch.int64), None),  # one for each class
    ],
)
def test_labels_with_the_texts_length_may_belong_to_its_tokens(labels, fill):
    guesses = guessed(tokens(3, labels=labels))
    assert all(columns_of(guess) >= TOKEN_AXES for guess in guesses)
    if fill is None:
        assert [columns_of(guess) for guess in guesses] == [TOKEN_AXES]
    else:
        assert columns_of(guesses[0]) == {*TOKEN_AXES, ("labels", 1)}
        assert guesses[0].fills["labels"] == fill
        assert columns_of(guesses[-1]) == TOKEN_AXES


def test_all_axes_of_the_length_are_guessed_with_and_without_doubtful_ones():
    weights, links = torch.ones(2, 3), torch.ones(2, 3, 3, dtype=torch.int64)
    guesses = guessed(tokens(3, token_weights=weights, links=links))
    more = {("token_weights", 1), ("links", 1), ("links", 2), ("labels", 1)}
    assert columns_of(guesses[0]) == TOKEN_AXES | more
    assert guesses[0].fills["token_weights"] == guesses[0].fills["links"] == 0
    assert {guess.fills.get("links") for guess in guesses} == {0, -100, None}
    left = [columns_of(guess) for guess in guesses]
    assert TOKEN_AXES | more - {("links", 1), ("links", 2)} in left
    assert TOKEN_AXES | more - {("links", 2)} in left
    assert TOKEN_AXES in left


def test_a_user_may_add_change_and_remove_columns():
    guess = guessed(
        {"words": torch.ones(1, 3), **tokens(3, 1)}, {"words": 9, "labels": None, "input_ids": 5}
    )[0]
    assert columns_of(guess) == {("words", 1), *TOKEN_AXES}
    assert guess.fills == {"words": 9, "input_ids": 5, "attention_mask": 0}
    # A user's column sets the length, although it comes after the labels.
    alone = {"words": torch.ones(1, 3), "labels": torch.ones(1, 2, dtype=torch.int64)}
    assert columns_of(guessed(alone, {"words": 9})[0]) == {("words", 1)}
    assert padding_rules({"labels": None, "words": 9})["words"] == 9


def test_without_a_known_column_there_is_no_length():
    images = {"pixel_values": torch.ones(2, 3, 5, 5), "labels": torch.ones(2, 3, dtype=torch.int64)}
    for batch in (images, {"input_ids": [[1], [2, 3]]}, tokens(0)):
        assert guessed(batch) == []
    assert guessed(tokens(3), without=[("input_ids", 1)]) == []


def test_axes_that_vary_together_are_padded_by_constants_or_repeated():
    batch = {
        "pair_labels": torch.ones(3, dtype=torch.int64),
        "pairs": torch.ones(3, 2, dtype=torch.int64),
        "scores": torch.ones(3),
    }
    guesses = list(Guesses({"scores": 0.5}, (4, 8)).of_group(batch, [(n, 0) for n in batch]))
    assert all(guess.ladder == ROWS for guess in guesses)
    assert guesses[0].column_axes[-1] == ("pair_labels", 0)
    assert guesses[0].fills == {"pair_labels": -100, "pairs": 0, "scores": 0.5}
    assert guesses[1].fills == {"pair_labels": -100, "pairs": None, "scores": 0.5}
    words = Guesses({}, (4, 8)).of_group({"words": torch.ones(2, 3)}, [("words", 1)])
    assert next(words).ladder[:5] == (4, 8, 12, 16, 24)
    assert list(Guesses({"pairs": None}, (4,)).of_group(batch, [("pairs", 0)])) == []


def test_labels_of_audio_are_not_padded_to_the_lengths_of_audio():
    batch = {"labels": torch.ones(2, 3, dtype=torch.int64)}
    guess = next(Guesses({}, (16_000, 32_000)).of_group(batch, [("labels", 1)]))
    assert guess.ladder[:8] == (32, 64, 128, 256, 512, 1024, 16_000, 32_000)
    assert guess.rung(3) == 32


def test_shapes_are_counted_and_many_shapes_warn():
    count = ShapeCount(limit=6, warn_after=2, seconds=lambda: 5.0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert [count.add(tokens(length)) for length in (3, 4, 3)] == [True, True, False]
    with pytest.warns(
        UserWarning,
        match=r"3 shapes so far, which took 5\.0 s to trace and compile, 2\.5 s each: column "
        r"'input_ids': \(2, 3\) int64, \(2, 4\) int64, \(2, 5\) int64; .*after 6 shapes",
    ):
        count.add(tokens(5))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        count.add(tokens(6))
        count.add(tokens(7))
    with pytest.warns(UserWarning, match=r"6 shapes so far"):
        count.add(tokens(8))
    assert len(count) == 6
    with pytest.raises(
        ValueError,
        match=r"a new shape after 6 others, .*\(2, 5\) int64, \.\.\.;.*max_shapes=\.\.\.\) above 6",
    ):
        count.add(tokens(9))
    assert not count.add(tokens(3))


def test_the_error_says_why_columns_are_not_padded():
    reasons = {"input_ids": "padding input_ids is not harmless"}
    count = ShapeCount(limit=1, reasons=lambda names: [reasons[n] for n in names if n in reasons])
    count.add(tokens(3))
    with pytest.raises(ValueError, match=r"padding input_ids is not harmless\. Each .* in collate"):
        count.add(tokens(4))


def test_the_error_names_varying_constants_and_columns():
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
