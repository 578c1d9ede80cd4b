"""A newest checkpoint with random damage gives the right state, or the previous one is used."""

from __future__ import annotations

import json
import logging
import random
import shutil
from collections import Counter
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import medjax
from medjax import CheckpointStore, CorruptCheckpointError


def _tree(value: float) -> dict:
    weights = np.random.RandomState(int(value)).rand(40, 30)
    return {"w": jnp.asarray(weights, jnp.float32), "count": jnp.asarray(int(value), jnp.int32)}


def _layout() -> dict:
    here = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    return {"w": here, "count": here}


def _restore(folder: Path) -> tuple[float, dict]:
    with CheckpointStore(folder, "reader") as store:
        state, progress = store.restore("auto", _tree(0), _layout())
    return progress["at"], state


def _equal(a: dict, b: dict) -> bool:
    return all(np.asarray(a[name]).tobytes() == np.asarray(b[name]).tobytes() for name in a)


@pytest.fixture(scope="module")
def sound(tmp_path_factory) -> Path:
    """Return a folder with two checkpoints, 1 and 2."""
    folder = tmp_path_factory.mktemp("sound") / "out"
    with CheckpointStore(folder, "run") as store:
        for value in (1.0, 2.0):
            store.save(
                store.new_path(int(value)),
                _tree(value),
                {"at": value},
                metric=value,
                config={"learning_rate": 0.1},
                write_files=lambda folder: (folder / "own.bin").write_bytes(bytes(range(200))),
            )
    return folder


def _damage(path: Path, kind: str, rng: random.Random) -> None:
    content = path.read_bytes()
    at = rng.randrange(len(content)) if content else 0
    if not content and kind != "delete":
        path.write_bytes(b"?")  # an empty file can but grow or go
    elif kind == "flip":
        changed = bytearray(content)
        changed[at] ^= 1 << rng.randrange(8)
        path.write_bytes(changed)
    elif kind == "byte":
        changed = bytearray(content)
        changed[at] = (changed[at] + rng.randrange(1, 256)) % 256
        path.write_bytes(changed)
    elif kind == "truncate":
        path.write_bytes(content[:at])
    elif kind == "empty":
        path.write_bytes(b"")
    else:
        path.unlink()


KINDS = ("flip", "byte", "truncate", "empty", "delete")


def _damages(files: list[Path], times: int, rng: random.Random) -> list[tuple[Path, str]]:
    """Return which files to damage and how: each file in each way if `times` is large enough."""
    every = [(path, kind) for path in files for kind in KINDS]
    rng.shuffle(every)
    return [every[number % len(every)] for number in range(times)]


@pytest.mark.parametrize(("times", "seed"), [(60, 1), pytest.param(400, 2, marks=pytest.mark.slow)])
def test_random_damage(times, seed, sound, tmp_path, caplog):
    """Damage to every file; the long form, ``-m slow -s``, prints the counts by file and kind."""
    rng = random.Random(seed)
    caplog.set_level(logging.WARNING, logger="medjax")
    newest = medjax.last_checkpoint(sound)
    files = [path.relative_to(newest) for path in sorted(newest.rglob("*")) if path.is_file()]
    counts: Counter[str] = Counter()
    for number, (target, kind) in enumerate(_damages(files, times, rng)):
        folder = Path(shutil.copytree(sound, tmp_path / str(number)))
        damaged = folder / newest.name
        _damage(damaged / target, kind, rng)
        caplog.clear()
        at, state = _restore(folder)
        case = f"{kind} in {target}"
        outcome = "fallen back" if at == 1.0 else "not affected"
        counts.update([outcome if _equal(state, _tree(at)) else "wrong loaded", str(target), kind])
        if outcome == "fallen back":
            assert not damaged.exists(), case
            assert damaged.with_name("corrupt_" + damaged.name).is_dir(), case
            assert "set aside as corrupt_checkpoint_002" in caplog.text, case
            assert f"which is intact: {folder}/checkpoint_001" in caplog.text, case
        else:
            # Only blanks between the entries of the manifest may differ unnoticed.
            assert target.name == "manifest.json", case
            assert caplog.text == "", case
        shutil.rmtree(folder)
    print(json.dumps({"tried": times, "wrong loaded": 0, **counts}, indent=1))
    assert counts["wrong loaded"] == 0
    assert counts["fallen back"] > times * 0.9
    assert times < len(files) * len(KINDS) or all(counts[str(path)] for path in files)


def test_all_checkpoints_damaged(sound, tmp_path):
    folder = Path(shutil.copytree(sound, tmp_path / "out"))
    for checkpoint in folder.iterdir():
        (checkpoint / "own.bin").write_bytes(b"damaged")
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    with pytest.raises(CorruptCheckpointError, match="nothing was changed") as raised:
        _restore(folder)
    assert str(raised.value).count("own.bin has 7 bytes; expected 200") == 2
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


def test_a_damaged_path_is_not_replaced_by_another(sound, tmp_path):
    folder = Path(shutil.copytree(sound, tmp_path / "out"))
    newest = medjax.last_checkpoint(folder)
    (newest / "own.bin").unlink()
    with (
        CheckpointStore(folder, "reader") as store,
        pytest.raises(CorruptCheckpointError, match=r"lacks the file own\.bin"),
    ):
        store.restore(newest, _tree(0), _layout())
    assert newest.is_dir()


def test_files_may_be_added_but_not_to_the_arrays(sound, tmp_path):
    folder = Path(shutil.copytree(sound, tmp_path / "out"))
    newest = medjax.last_checkpoint(folder)
    (newest / "README.md").write_text("the one in production")
    assert _restore(folder)[0] == 2.0
    (newest / "training_state" / "more").write_text("?")
    assert _restore(folder)[0] == 1.0


def test_setting_aside_under_a_name_in_use(sound, tmp_path):
    folder = Path(shutil.copytree(sound, tmp_path / "out"))
    newest = medjax.last_checkpoint(folder)
    shutil.copytree(newest, newest.with_name("corrupt_" + newest.name))
    (newest / "own.bin").unlink()
    assert _restore(folder)[0] == 1.0
    assert newest.with_name(f"corrupt_{newest.name}-1").is_dir()


def test_after_a_fallback_the_run_continues(sound, tmp_path):
    folder = Path(shutil.copytree(sound, tmp_path / "out"))
    (medjax.last_checkpoint(folder) / "manifest.json").unlink()
    with CheckpointStore(folder, "reader") as store:
        store.restore("auto", _tree(0), _layout())
        assert store.run == "run"
        store.save(
            store.new_path(2),
            _tree(3.0),
            {"at": 3.0},
            metric=0.1,
            config={},
            write_files=lambda folder: None,
            block=True,
        )
    assert _restore(folder)[0] == 3.0


@pytest.mark.parametrize("fault", ["unreadable file", "unreadable record"])
def test_a_disk_that_cannot_be_read(fault, sound, tmp_path, monkeypatch):
    folder = Path(shutil.copytree(sound, tmp_path / "out"))
    newest = medjax.last_checkpoint(folder)
    name = "own.bin" if fault == "unreadable file" else "training_state.json"
    original = Path.open

    def broken(self, *args, **kwargs):
        if self == newest / name:
            raise OSError(5, "Input/output error")
        return original(self, *args, **kwargs)

    monkeypatch.setattr(Path, "open", broken)
    assert _restore(folder)[0] == 1.0


BAD_MANIFESTS = [
    "",
    "{}",
    "[]",
    "null",
    '{"own.bin": 3}',
    '{"own.bin": [200]}',
    '{"own.bin": null}',
    '{"own.bin": [1e999, "x"]}',
    '{"own.bin": [NaN, "x"]}',
    "[" * 100_000,
    "{",
    "\ud800",
]


@pytest.mark.parametrize("content", BAD_MANIFESTS)
def test_bad_manifests(content, sound, tmp_path):
    folder = Path(shutil.copytree(sound, tmp_path / "out"))
    newest = medjax.last_checkpoint(folder)
    (newest / "manifest.json").write_bytes(content.encode("utf-8", "surrogatepass"))
    assert _restore(folder)[0] == 1.0


def _record(**changes: object) -> str:
    good = {"format": 1, "serial": 9, "run": "run", "metric": None, "spec": {}, "progress": {}}
    return json.dumps({**good, **changes})


@pytest.mark.parametrize(
    "content",
    [
        "",
        "null",
        "[]",
        "3",
        "[" * 100_000,
        "{}",
        _record(serial="1"),
        _record(run=None),
        _record(metric="x"),
        _record(metric=[]),
        *(
            _record(spec={"w": leaf})
            for leaf in ({"a": [], "b": "x"}, "ab", [3, "x"], [["a"], "x"])
        ),
        _record(serial=-1),
        _record(serial=2**31),
        _record(format=None),
        _record(progress=[]),
        _record(metric=10**400),
    ],
)
def test_folders_with_bad_records_are_not_checkpoints(content, sound, tmp_path):
    folder = Path(shutil.copytree(sound, tmp_path / "out"))
    newest = medjax.last_checkpoint(folder)
    (newest / "training_state.json").write_text(content)
    assert medjax.last_checkpoint(folder) != newest
    assert medjax.best_checkpoint(folder) == medjax.last_checkpoint(folder)
    assert _restore(folder)[0] == 1.0
