"""Malicious folders raise a documented error within seconds; nothing hangs or fills the memory.

An attacker who forges a checkpoint forges its manifest as well.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import signal
import socket
import stat
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import job
import numpy as np
import pytest
from safetensors.numpy import save_file

from medjax import CheckpointStore, CorruptCheckpointError
from medjax.models import BertConfig, load_tokenizer, read_config, read_params
from medjax.models.huggingface import check_params

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="files and signals of POSIX")


@pytest.fixture(autouse=True)
def in_seconds():
    """End a test that hangs."""

    def ring(*_):
        raise TimeoutError("it hung")

    before = signal.signal(signal.SIGALRM, ring)
    signal.alarm(60)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def sign(checkpoint: Path) -> None:
    entries = {
        path.relative_to(checkpoint).as_posix(): [
            path.stat().st_size,
            hashlib.sha256(path.read_bytes()).hexdigest(),
        ]
        for path in checkpoint.rglob("*")
        if path.is_file() and path.name != "manifest.json"
    }
    (checkpoint / "manifest.json").write_text(json.dumps(entries))


def put_special(kind: str, path: Path) -> None:
    """Put a pipe, a socket or a device there."""
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "socket":
        here = Path.cwd()
        os.chdir(path.parent)  # the name of a socket is short
        with socket.socket(socket.AF_UNIX) as opened:
            opened.bind(path.name)
        os.chdir(here)
    else:
        try:
            os.mknod(path, stat.S_IFCHR | 0o600, os.makedev(1, 5))  # /dev/zero: it never ends
        except PermissionError:
            pytest.skip("only root makes devices")


SPECIAL = ("pipe", "socket", "device")


def like() -> dict:
    return {"w": jnp.zeros((2, 3))}


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    with CheckpointStore(tmp_path / "out", "run") as store:
        path = store.new_path(1)
        store.save(
            path,
            like(),
            {"at": 1},
            metric=None,
            config={},
            write_files=lambda folder: None,
            block=True,
        )
    return path


def metadata(checkpoint: Path) -> Path:
    (path,) = (checkpoint / "training_state").rglob("_METADATA")
    return path


def restore(checkpoint: Path):
    layout = {"w": jax.sharding.SingleDeviceSharding(jax.devices()[0])}
    with CheckpointStore(checkpoint.parent, "reader") as store:
        return store.restore(checkpoint, like(), layout)


@pytest.mark.parametrize("kind", SPECIAL)
@pytest.mark.parametrize("replaced", [True, False])
def test_special_files_among_the_arrays(kind, replaced, checkpoint):
    path = metadata(checkpoint)
    if replaced:
        path.unlink()
    else:
        path = path.with_name("another")
    put_special(kind, path)
    sign(checkpoint)
    with pytest.raises(CorruptCheckpointError, match=rf"{path.name} is a pipe, a socket or a"):
        restore(checkpoint)


CONTENTS = {
    "deep lists": "[" * 200_000,
    "deep objects": '{"a":' * 100_000,
    "list": "[]",
    "none": "{}",
}


@pytest.mark.parametrize("kind", CONTENTS)
def test_malformed_json_of_orbax(kind, checkpoint):
    metadata(checkpoint).write_text(CONTENTS[kind])
    sign(checkpoint)
    with pytest.raises(CorruptCheckpointError, match=r"arrays of .* cannot be read"):
        restore(checkpoint)


FORGED = {
    "batch beyond": ({"batch": 10**9}, "batch 1000000000 of an epoch, .* has 13 batches"),
    "epoch beyond": ({"epoch": 10**400}, r"epoch 10\*\*400 or more, but its history has 2 epochs"),
    "epoch before": ({"epoch": 2}, "epoch 2, but its history has 2 epochs"),
    "history": ({"history": [{"train": {"loss": 1.0}}] * 5000}, "history has 5000 epochs"),
    "no history": ({"history": []}, "epoch 3, but its history has 0 epochs"),
    "negative batch": ({"batch": -1}, "damaged .* batch -1"),
    "negative epoch": ({"epoch": -(10**30)}, "damaged"),
    "negative seed": ({"seed": -1}, "damaged .* seed -1"),
    "large seed": ({"seed": 2**63}, "damaged .* seed 9223372036854775808"),
    "rate of NaN": ({"schedule": {"learning_rate": float("nan")}}, "damaged .* rate is nan"),
    "rate without end": ({"schedule": {"learning_rate": 1e39}}, r"damaged .* rate is 1e\+39"),
    "rate of an integer": ({"schedule": {"learning_rate": 10**400}}, "damaged"),
}


@pytest.mark.parametrize("kind", FORGED)
def test_impossible_positions(kind, saved, tmp_path):
    fields, message = FORGED[kind]
    out = Path(shutil.copytree(saved, tmp_path / "out"))
    newest = max(out.glob("checkpoint_*"), key=lambda path: path.name)
    file = newest / "training_state.json"
    record = json.loads(file.read_text())
    progress = record["progress"]
    for name, value in fields.items():
        current = progress[name]
        progress[name] = {**current, **value} if isinstance(current, dict) else value
    file.write_text(json.dumps(record))
    sign(newest)
    with pytest.raises(CorruptCheckpointError, match=message):
        job.run(out, resume=newest, options=job.EVERY_3)


# Model folders.

SIZES = {
    "vocab_size": 50,
    "hidden_size": 8,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 16,
    "max_position_embeddings": 12,
}


def write_model(folder: Path) -> Path:
    """Write config.json and weights of a tiny BERT."""
    from flax.traverse_util import unflatten_dict

    from medjax.models import write_checkpoint
    from medjax.models.huggingface import _parameter_shapes

    config = BertConfig(**SIZES)
    shapes = _parameter_shapes(config, 3)
    params = unflatten_dict({path: np.zeros(shape) for path, shape in shapes.items()})
    write_checkpoint(folder, config, params, labels=["O", "B-x", "I-x"])
    return folder


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return write_model(tmp_path / "model")


def read(folder: Path) -> None:
    config = read_config(folder)
    check_params(folder, config)
    read_params(folder, config)


def test_the_model_is_intact(model):
    read(model)


@pytest.mark.parametrize("kind", SPECIAL)
@pytest.mark.parametrize(
    "name", ["config.json", "model.safetensors", "model.safetensors.index.json", "any"]
)
def test_special_files_in_a_model_folder(kind, name, model):
    (model / name).unlink(missing_ok=True)
    put_special(kind, model / name)
    with pytest.raises(ValueError, match=rf"{name} is a pipe, a socket or a device"):
        read(model)


@pytest.mark.parametrize("name", ["tokenizer.json", "special_tokens_map.json", "config.json"])
def test_special_files_beside_a_tokenizer(name, tmp_path):
    (tmp_path / "vocab.txt").write_text("[PAD]\n[UNK]\n[CLS]\n[SEP]\nfever\n")
    put_special("pipe", tmp_path / name)
    with pytest.raises(ValueError, match=rf"{name} is a pipe, a socket or a device"):
        load_tokenizer(tmp_path)


@pytest.mark.parametrize("name", SIZES)
@pytest.mark.parametrize("size", [10**9, 10**12, 10**30])
def test_sizes_that_the_weights_do_not_have(name, size, model):
    content = json.loads((model / "config.json").read_text()) | {name: size}
    (model / "config.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match=rf"{name}|config\.json requires"):
        read(model)
    if size >= 2**31:
        with pytest.raises(ValueError, match=f"{name} is .*expected at most 2,147,483,647"):
            BertConfig(**{**SIZES, name: size})
    elif name not in {"num_hidden_layers", "num_attention_heads"}:
        with pytest.raises(ValueError, match=r"tensor .* has shape .*config\.json requires"):
            read_params(model, BertConfig(**{**SIZES, name: size}))


def test_layers_that_the_weights_do_not_have(model):
    size = 10**9
    wanted = BertConfig(**{**SIZES, "num_hidden_layers": size})
    for check in (read_params, check_params):
        with pytest.raises(ValueError, match=rf"is {size:,}; the weights have 2 layers"):
            check(model, wanted)


@pytest.mark.parametrize("name", ["layer_norm_eps", "initializer_range", "hidden_dropout_prob"])
@pytest.mark.parametrize("value", [float("inf"), float("nan"), -1.0])
def test_malformed_numbers(name, value, model):
    content = json.loads((model / "config.json").read_text()) | {name: value}
    (model / "config.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match=name):
        read(model)


HEADERS = {
    "length": (2**60).to_bytes(8, "little") + b"{}",
    "shape": None,
    "offsets": None,
    "deep": None,
    "cut": b"\x10",
}


@pytest.mark.parametrize("kind", HEADERS)
def test_headers_of_safetensors_that_lie(kind, model):
    file = model / "model.safetensors"
    name = "bert.embeddings.word_embeddings.weight"
    headers = {
        "shape": {name: {"dtype": "F32", "shape": [10**12, 8], "data_offsets": [0, 32]}},
        "offsets": {name: {"dtype": "F32", "shape": [1, 8], "data_offsets": [0, 2**62]}},
    }
    content = HEADERS[kind]
    if content is None:
        header = b"[" * 100_000 if kind == "deep" else json.dumps(headers[kind]).encode()
        content = len(header).to_bytes(8, "little") + header + bytes(32)
    file.write_bytes(content)
    with pytest.raises(ValueError, match=r"cannot read .*model\.safetensors"):
        read(model)


def test_a_tensor_without_elements(model):
    """It has no bytes, so its header is valid."""
    empty = {"embeddings.word_embeddings.weight": np.zeros((0, 8), np.float32)}
    save_file(empty, model / "model.safetensors")
    with pytest.raises(ValueError, match=r"num_hidden_layers is 2; the weights have 0 layers"):
        read(model)


def test_other_data_at_the_end_of_an_epoch_is_a_warning(tmp_path, caplog):
    caplog.set_level(logging.WARNING, logger="medjax")
    data = job.items()
    job.run(tmp_path, nb_training_epochs=1, data=data)
    job.run(tmp_path, resume="auto", nb_training_epochs=2, data=data)
    assert "items" not in caplog.text
    grown = job.run(tmp_path, resume="auto", nb_training_epochs=3, data=[*data, *data[:7]])
    assert len(grown.history) == 3
    message = f"has {len(data) + 7} items, but it had {len(data)} when the checkpoint was saved, at"
    assert caplog.text.count(message) == 1
