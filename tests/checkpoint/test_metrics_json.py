"""Whatever compute returns as a score, a run goes on, and its checkpoints hold what JSON can."""

import json
import logging
from decimal import Decimal
from fractions import Fraction

import jax.numpy as jnp
import numpy as np
import pytest

from medjax.callbacks import table, writers
from medjax.checkpoint import metrics_json, records, space
from medjax.checkpoint.metrics_json import history_to_json


class Tensor:
    """Converts as torch's tensors do."""

    def __init__(self, values):
        self._values = np.asarray(values)

    def tolist(self):
        return self._values.tolist()

    def __float__(self):
        if self._values.size != 1:
            raise RuntimeError("a Tensor with several elements cannot be converted to Scalar")
        return float(self._values.item())


class Silent:
    def __str__(self):
        raise RuntimeError("mine")


def stored(value):
    history = history_to_json([{"eval": {"score": value}}])
    return json.loads(json.dumps(history))[0]["eval"]["score"]


@pytest.fixture(autouse=True)
def untold():
    metrics_json._tell_once.cache_clear()


NUMBERS = [
    (Tensor(0.5), 0.5),
    (Tensor([[0.5]]), 0.5),
    (Tensor([1, 2]), [1, 2]),
    (Tensor([[[1, 2]]]), [[[1, 2]]]),
    (np.float32(0.5), 0.5),
    (np.bool_(True), True),
    (jnp.bfloat16(0.5), 0.5),
    (jnp.ones(2, jnp.bfloat16), [1.0, 1.0]),
    (np.eye(2), [[1.0, 0.0], [0.0, 1.0]]),
    ({"f": (Tensor(1), None)}, {"f": [1, None]}),
    ({0: 0.5}, {"0": 0.5}),
    (Decimal("1.5"), 1.5),
    (Fraction(1, 4), 0.25),
    ("text", "text"),
]


@pytest.mark.parametrize(("value", "expected"), NUMBERS, ids=range(len(NUMBERS)))
def test_what_has_numbers_is_stored_in_silence(value, expected, caplog):
    assert stored(value) == expected
    assert type(stored(value)) is type(expected)
    assert caplog.text == ""


TEXTS = [
    (b"x", "b'x'", "bytes"),
    ({1}, "{1}", "set"),
    (1 + 2j, "(1+2j)", "complex"),
    (np.complex64(1), "(1+0j)", "complex64"),
    (Silent(), "<Silent>", "Silent"),
    ({np.int64(3): 0.5}, {"3": 0.5}, "dict with keys of type int64"),
    ({(0, 1): 0.5}, {"(0, 1)": 0.5}, "dict with keys of type tuple"),
]


@pytest.mark.parametrize(("value", "expected", "kind"), TEXTS, ids=[t[2] for t in TEXTS])
def test_other_things_are_stored_as_text_with_one_warning(value, expected, kind, caplog):
    caplog.set_level(logging.WARNING, logger="medjax")
    for _ in range(2):
        assert stored(value) == expected
    (warning,) = caplog.messages
    assert f"the metric 'score' of eval is or contains a {kind}," in warning
    assert "the history of a resumed run has that text" in warning


def test_a_list_that_contains_itself():
    value = []
    value.append(value)
    assert stored(value) == "[[...]]"


def test_callbacks_may_keep_tensors(tmp_path):
    records.write_record(tmp_path, {"callbacks": {"best": Tensor([0.5]), "all": np.ones(1)}})
    text = (tmp_path / records.RECORD).read_text()
    assert json.loads(text) == {"callbacks": {"best": 0.5, "all": [1.0]}}


def test_the_table_and_the_files_take_them(tmp_path):
    scores = {"f1": Tensor(0.25), "confusion": Tensor([1, 2]), "frame": "a  b\n0  1"}
    writer = writers.MetricsWriter(tmp_path)
    writer.on_epoch_end({"eval": scores}, epoch=1, epoch_duration=1.0)
    assert json.loads((tmp_path / "metrics.jsonl").read_text())["eval/f1"] == 0.25
    line = table.row({"eval": scores}, [("eval", name) for name in scores], 1, 1.0)
    assert " 0.25 " in line
    assert line.endswith("a b 0 1")
    wide = table.row({"eval": {"x": "word " * 90}}, [("eval", "x")], 1, 1.0)
    assert wide.endswith("word w ...")
    assert len(wide) < 60


@pytest.mark.parametrize(
    ("error", "is_of_space"),
    [
        (TypeError("no form"), False),
        (PermissionError(13, "Permission denied"), False),
        (OSError(28, "No space left on device"), True),
        (ValueError("[tensorstore/file.cc:7] No space left on device"), True),
    ],
    ids=["type", "permission", "full", "tensorstore"],
)
def test_only_a_full_disk_is_told_of_sizes(error, is_of_space, tmp_path):
    said = str(space.give_back(tmp_path / "checkpoint", tmp_path / ".saving", 10**18, error))
    assert ("It needs about" in said) == is_of_space
    assert said.endswith(
        "free some space and resume" if is_of_space else "fix the cause and resume"
    )
