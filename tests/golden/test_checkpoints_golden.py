"""Checkpoints that earlier versions wrote still load, and training continues from them."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
from golden_runs import RUNS, Restored, TorchComponent, functional_component

import medjax
from medjax.checkpoint.manifest import write_manifest

HERE = Path(__file__).parent
ARCHIVES = sorted(HERE.glob("checkpoints_format*.zip"))


def run_of(archive: Path):
    return RUNS[archive.stem.split("_", 2)[2]]


def unpacked(archive: Path, folder: Path) -> tuple[Path, dict]:
    with zipfile.ZipFile(archive) as stored:
        stored.extractall(folder)
    return folder / "out", json.loads((folder / "expected.json").read_text())


def close(history: list, expected: list) -> None:
    assert len(history) == len(expected)
    for row, other in zip(history, expected, strict=True):
        for phase in ("train", "eval"):
            assert row[phase] == pytest.approx(other[phase], rel=1e-4)


def test_there_is_one_of_each_door_and_format():
    assert [path.name for path in ARCHIVES] == [
        "checkpoints_format1_medjax.zip",
        "checkpoints_format1_medjax_torch.zip",
    ]


@pytest.mark.parametrize("archive", ARCHIVES, ids=lambda path: path.stem)
def test_values_are_those_that_were_saved_and_the_run_goes_on(archive, tmp_path):
    out, expected = unpacked(archive, tmp_path)
    with Restored() as restored:
        history = run_of(archive)(out, resume="auto")
    assert restored.state.keys() == expected["state"].keys()
    for name, (dtype, values) in expected["state"].items():
        assert restored.state[name][0] == dtype, name
        np.testing.assert_array_equal(restored.state[name][1], values, err_msg=name)
    assert restored.progress == expected["progress"]
    assert (restored.progress["epoch"], restored.progress["batch"]) == (2, 3)
    close(history, expected["history"])
    # Going on is the same as never having stopped, but for the order of sums on other machines.
    close(history, run_of(archive)(tmp_path / "whole"))


@pytest.mark.parametrize("archive", ARCHIVES, ids=lambda path: path.stem)
def test_nothing_in_them_is_of_the_machine_that_made_them(archive):
    with zipfile.ZipFile(archive) as stored:
        for name in stored.namelist():
            if name.endswith("commit_success.txt"):
                continue  # Orbax notes there where it wrote, for people to read
            content = stored.read(name)
            for path in (b"/home", b"/tmp", b"/usr", b"/var", b"site-packages"):
                assert path not in content, name
    assert archive.stat().st_size < 50_000


@pytest.mark.parametrize("archive", ARCHIVES, ids=lambda path: path.stem)
def test_a_newer_format_is_refused(archive, tmp_path):
    out, _ = unpacked(archive, tmp_path)
    newest = medjax.last_checkpoint(out)
    record = json.loads((newest / "training_state.json").read_text())
    (newest / "training_state.json").write_text(json.dumps({**record, "format": 99}))
    (newest / "manifest.json").unlink()
    write_manifest(newest)
    with pytest.raises(medjax.MismatchError, match=r"has format 99, .* reads up to 1; install"):
        run_of(archive)(out, resume=newest)


def test_another_model_is_refused_by_leaf(tmp_path):
    out, _ = unpacked(ARCHIVES[0], tmp_path / "functional")
    parts = functional_component()
    init = parts.init

    def wider(key):
        variables = init(key)
        variables["params"]["bias"] = np.zeros(7, np.float32)
        return variables

    expected = r"\['bias'\]: found float32 of shape \(2,\), expected float32 of shape \(7,\)"
    with pytest.raises(medjax.MismatchError, match=expected):
        RUNS["medjax"](out, resume="auto", parts=parts._replace(init=wider))
    out, _ = unpacked(ARCHIVES[1], tmp_path / "torch")
    expected = r"found float32 of shape \(4,.*expected float32 of shape \(5,"
    with pytest.raises(medjax.MismatchError, match=expected):
        RUNS["medjax_torch"](out, resume="auto", parts=TorchComponent(width=5))
