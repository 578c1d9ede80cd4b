"""No file that is read runs code, opens a connection or reaches files outside a checkpoint."""

from __future__ import annotations

import ast
import hashlib
import json
import os
import pickle
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import guarded
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import medjax
from medjax import CheckpointError, CheckpointStore, CorruptCheckpointError
from medjax.checkpoint import manifest as manifest_module
from medjax.checkpoint.arrays import save_arrays

ROOT = Path(medjax.__file__).parents[1]
SOURCES = [*(ROOT / "medjax").rglob("*.py"), *(ROOT / "interop").rglob("*.py")]


@pytest.mark.parametrize("door", ["medjax", "medjax_torch"])
def test_training_and_resuming_load_no_pickle_and_open_no_socket(door, tmp_path):
    here = Path(__file__).parent
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join(map(str, [ROOT, ROOT / "interop"])),
        "JAX_PLATFORMS": "cpu",
    }
    done = subprocess.run(
        [sys.executable, str(here / "guarded.py"), door, str(tmp_path)],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("resumed\n")


def test_the_guard_notices():
    script = f"import sys; sys.path.insert(0, {str(Path(guarded.__file__).parent)!r})\n"
    script += "import guarded, pickle, socket; sys.addaudithook(guarded.forbid)\n"
    payload = pickle.dumps(Path("x"))
    for line in (f"pickle.loads({payload!r})", "socket.socket(socket.AF_INET)"):
        done = subprocess.run(
            [sys.executable, "-c", script + line], capture_output=True, text=True, check=False
        )
        assert "ForbiddenError" in done.stderr
    assert socket.AF_UNIX != socket.AF_INET


def calls_of(path: Path) -> list[tuple[str, ast.Call]]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    return [(ast.unparse(call.func), call) for call in calls]


def test_sources_load_plain_data_only():
    # Worker processes get dataset and preprocess from the process that started them.
    own_pickles = {"medjax/data/source.py", "interop/medjax_torch/batches/items.py"}
    loaded = 0
    for path in SOURCES:
        forbidden = {"eval", "exec", "yaml.load", "yaml.unsafe_load", "yaml.full_load"}
        if path.relative_to(ROOT).as_posix() not in own_pickles:
            forbidden |= {"pickle.load", "pickle.loads", "pickle.Unpickler"}
        for name, call in calls_of(path):
            assert name not in forbidden, f"{path}:{call.lineno}"
            keywords = {keyword.arg: ast.unparse(keyword.value) for keyword in call.keywords}
            if name == "torch.load":
                loaded += 1
                assert keywords["weights_only"] == "True", f"{path}:{call.lineno}"
            assert keywords.get("allow_pickle", "False") == "False", f"{path}:{call.lineno}"
    assert loaded


# Forged checkpoints: an attacker who writes the files also writes the manifest.


def _state(value: float = 1.0) -> dict:
    return {"w": jnp.full((2, 3), value, jnp.float32)}


def _layout() -> dict:
    return {"w": jax.sharding.SingleDeviceSharding(jax.devices()[0])}


def _write_files(folder: Path) -> None:
    (folder / "own.bin").write_bytes(b"weights")


def _save(folder: Path, write_files=_write_files) -> Path:
    with CheckpointStore(folder, "run") as store:
        path = store.new_path(1)
        store.save(
            path,
            _state(),
            {"at": 1},
            metric=None,
            config={},
            write_files=write_files,
            block=True,
        )
    return path


def _restore(checkpoint: Path):
    with CheckpointStore(checkpoint.parent, "reader") as store:
        return store.restore(checkpoint, _state(), _layout())


def _sign(checkpoint: Path) -> None:
    """Write the manifest again, following links if there are any."""
    files = [p for p in checkpoint.rglob("*") if p.is_file() and p.name != "manifest.json"]
    for folder in checkpoint.iterdir():
        if folder.is_symlink() and folder.is_dir():
            files += [p for p in folder.rglob("*") if p.is_file()]
    entries = {
        str(path.relative_to(checkpoint)): [
            path.stat().st_size,
            hashlib.sha256(path.read_bytes()).hexdigest(),
        ]
        for path in files
    }
    (checkpoint / "manifest.json").write_text(json.dumps(entries))


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    return _save(tmp_path / "out")


@pytest.mark.parametrize("name", ["../secret", "{absolute}", "training_state/../../secret"])
def test_names_in_the_manifest_are_never_opened(name, checkpoint, monkeypatch):
    secret = checkpoint.parent / "secret"
    secret.write_bytes(b"of another")
    entries = json.loads((checkpoint / "manifest.json").read_text())
    name = name.format(absolute=secret)
    entries[name] = [10, hashlib.sha256(b"of another").hexdigest()]
    (checkpoint / "manifest.json").write_text(json.dumps(entries))
    opened = []
    original = Path.open

    def note(self, *args, **kwargs):
        opened.append(self.resolve())
        return original(self, *args, **kwargs)

    monkeypatch.setattr(Path, "open", note)
    with pytest.raises(CorruptCheckpointError, match="lacks the file"):
        _restore(checkpoint)
    assert checkpoint / "manifest.json" in opened
    assert secret not in opened


@pytest.mark.parametrize(
    "name", ["own.bin", "training_state.json", "manifest.json", "training_state"]
)
def test_links_out_of_a_checkpoint_are_refused(name, checkpoint):
    outside = checkpoint.parent / "outside"
    (checkpoint / name).rename(outside)
    (checkpoint / name).symlink_to(outside)
    if name != "manifest.json":
        _sign(checkpoint)
    with pytest.raises(CorruptCheckpointError, match=r"symbolic link|not a regular file"):
        _restore(checkpoint)
    assert medjax.last_checkpoint(checkpoint.parent) in (None, checkpoint)


def test_a_checkpoint_with_links_is_not_saved(tmp_path):
    (tmp_path / "large.bin").write_bytes(b"weights")

    def link(folder):
        (folder / "own.bin").symlink_to(tmp_path / "large.bin")

    with pytest.raises(CheckpointError, match="is a symbolic link; save the file itself"):
        _save(tmp_path / "out", link)
    assert (tmp_path / "large.bin").read_bytes() == b"weights"
    assert list((tmp_path / "out").iterdir()) == []


def test_a_checkpoint_folder_may_itself_be_linked_to(checkpoint, tmp_path):
    (tmp_path / "best").symlink_to(checkpoint)
    (checkpoint / "README.md").symlink_to(tmp_path / "readme")  # an extra file that nothing reads
    assert _restore(tmp_path / "best")[1] == {"at": 1}


@pytest.mark.parametrize("name", ["manifest.json", "training_state.json"])
def test_json_files_have_a_maximum_size(name, checkpoint, monkeypatch):
    file = checkpoint / name
    file.write_bytes(file.read_bytes() + 10_000 * b" ")
    if name == "training_state.json":
        _sign(checkpoint)
    size = file.stat().st_size
    monkeypatch.setattr(manifest_module, "MAX_JSON", size)
    assert _restore(checkpoint)[1] == {"at": 1}
    monkeypatch.setattr(manifest_module, "MAX_JSON", size - 1)
    with pytest.raises(CorruptCheckpointError, match=f"no readable {name} .* has more than"):
        _restore(checkpoint)


def test_files_too_large_to_be_read_are_not_written(checkpoint, monkeypatch):
    monkeypatch.setattr(manifest_module, "MAX_JSON", 100)
    with pytest.raises(CheckpointError, match=r"could not be saved .* more than the"):
        _save(checkpoint.parent)
    assert list(checkpoint.parent.iterdir()) == [checkpoint]


def test_a_pipe_instead_of_a_file_does_not_block(checkpoint):
    (checkpoint / "training_state.json").unlink()
    os.mkfifo(checkpoint / "training_state.json")
    with pytest.raises(CorruptCheckpointError):
        _restore(checkpoint)


def test_arrays_larger_than_the_record_says_are_not_read(checkpoint, monkeypatch):
    """The record and the manifest agree; only the arrays have a different size."""
    shutil.rmtree(checkpoint / "training_state")
    save_arrays(checkpoint / "training_state", {"w": np.zeros((5000, 5000), np.float32)})()
    _sign(checkpoint)
    with pytest.raises(CorruptCheckpointError, match=r"\(2, 3\) is not .* shape: \(5000, 5000\)"):
        _restore(checkpoint)


def test_a_record_of_terabytes_is_refused_before_the_arrays_are_read(checkpoint, monkeypatch):
    file = checkpoint / "training_state.json"
    record = json.loads(file.read_text())
    record["spec"] = {"['w']": [[2**20, 2**22], "float32"]}
    file.write_text(json.dumps(record))
    _sign(checkpoint)
    monkeypatch.setattr("medjax.checkpoint.store.load_arrays", None)
    with pytest.raises(medjax.MismatchError, match=r"\(1048576, 4194304\), expected .*\(2, 3\)"):
        _restore(checkpoint)
