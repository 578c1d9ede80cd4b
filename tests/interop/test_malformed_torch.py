"""Malformed options, batches and torch files raise only documented exceptions."""

from __future__ import annotations

import dataclasses
import io
import pickle

import numpy as np
import pytest
import torch
from hypothesis import strategies as st
from malformed import ANYTHING, FUZZED, attempts, damaged, names_a_field
from trained import Classifier, make

import medjax_torch
from medjax import CheckpointError, ItemError
from medjax_torch.batches import epoch_batches, make_dataloader, to_arrays
from medjax_torch.checkpoints import read_torch_files


@FUZZED
def test_options(times):
    names = [field.name for field in dataclasses.fields(medjax_torch.Options)]

    def attempt(fields):
        try:
            medjax_torch.Options(**fields)
        except ValueError as error:
            names_a_field(error, "Options", fields)
            raise

    options = st.dictionaries(st.sampled_from(names), ANYTHING, min_size=1, max_size=2)
    attempts(times, options, attempt, ValueError)


class Wild(Classifier):
    """Accepts any item; collate returns a predefined value."""

    def preprocess(self, item):
        return {"length": len(item), "first": item[0]}

    def collate(self, examples):
        return examples[0]["first"]


@FUZZED
def test_items_and_what_collate_returns(times):
    def attempt(items):
        loader = make_dataloader(items, Wild(), batch_size=2, shuffle=True, seed=1)
        for indices, batch in epoch_batches(loader, 1):
            assert len(indices) <= 2
            assert isinstance(batch, dict)

    items = st.lists(st.one_of(ANYTHING, ANYTHING.map(lambda one: [one])), max_size=4)
    attempts(times, items, attempt, (ItemError, TypeError, ValueError))


DTYPES = [torch.int64, torch.uint8, torch.float64, torch.bfloat16, torch.complex128, torch.bool]
TENSORS = st.builds(
    lambda values, dtype: torch.tensor(values).to(dtype),
    st.lists(st.integers(-(2**62), 2**62), max_size=3),
    st.sampled_from(DTYPES),
)


@FUZZED
def test_columns_of_tensors(times):
    def attempt(columns):
        for name, array in to_arrays(columns).items():
            assert array.shape == tuple(columns[name].shape)
            assert array.dtype.itemsize <= 8

    odd = st.sampled_from([torch.eye(3).to_sparse(), torch.empty(2, device="meta")])
    columns = st.dictionaries(st.text(max_size=4), st.one_of(TENSORS, odd), max_size=3)
    attempts(times, columns, attempt, ValueError)


class Executed:
    def __reduce__(self):
        return pytest.fail, ("a pickle in a checkpoint was executed",)


@FUZZED
def test_optimizer_files(times, tmp_path):
    trainer = make(tmp_path / "out", nb_training_epochs=1)
    groups = trainer.optimizer.state_dict()["param_groups"]
    file = io.BytesIO()
    torch.save(trainer.optimizer.state_dict(), file)
    odd = [pickle.dumps(Executed()), pickle.dumps({"state": 1}), b"", np.int64(3).tobytes()]

    def attempt(content):
        (tmp_path / "optimizer.pt").write_bytes(content)
        read_torch_files(tmp_path, trainer.optimizer, None)

    files = st.one_of(damaged(file.getvalue()), st.binary(max_size=40), st.sampled_from(odd))
    attempts(times, files, attempt, CheckpointError)
    # Settings that the optimizer does not have are read as torch reads them, and change nothing.
    found = trainer.optimizer.state_dict()["param_groups"]
    known = [
        {name: group[name] for name in expected}
        for group, expected in zip(found, groups, strict=True)
    ]
    assert known == groups
