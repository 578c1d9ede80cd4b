"""Full disks, and folders that vanish or belong to another run, are reported; nothing is lost."""

from __future__ import annotations

import re
import shutil
import time
from pathlib import Path

import job
import pytest
from breaking import At
from disk import fill, small_disk

import medjax
from medjax import CheckpointError


def _names(folder: Path) -> list[str]:
    return sorted(path.name[:14] for path in folder.iterdir())


def _wait_for_save(folder: Path) -> None:
    """Wait until the save in the background is committed."""
    while list(folder.glob(".saving-*")):
        time.sleep(0.01)


def test_a_disk_that_fills_up_during_training(tmp_path, reference):
    with small_disk(tmp_path / "disk", 2) as disk:
        out = disk / "out"

        def full() -> None:
            _wait_for_save(out)
            fill(disk)

        with pytest.raises(CheckpointError, match="could not be saved") as raised:
            job.run(out, callback=At(2, 4, "train", full), options=job.EVERY_3)
        assert str(out / "checkpoint_002") in str(raised.value)
        assert re.search(r"needs about 0\.\d MB; 0\.0 MB are free there", str(raised.value))
        assert _names(out) == ["checkpoint_001", "checkpoint_002"]
        (disk / "filler").unlink()
        assert job.report(job.run(out, resume="auto", options=job.EVERY_3), out) == reference


def test_a_disk_too_small_for_the_state(tmp_path):
    with small_disk(tmp_path / "disk", 2) as disk:
        begun = []

        class Begun(medjax.TrainerCallback):
            def on_train_begin(self) -> None:
                begun.append(True)

        with pytest.raises(CheckpointError, match=r"has 2\.\d MB free.*will be stored there"):
            job.run(disk / "out", callback=Begun(), parts=job.component(width=400))
        assert begun == []
        assert list((disk / "out").iterdir()) == []


@pytest.mark.parametrize("again", [False, True])
def test_a_folder_deleted_under_the_run(again, tmp_path):
    out = tmp_path / "out"

    def delete() -> None:
        _wait_for_save(out)
        shutil.rmtree(out)
        if again:
            out.mkdir()

    with pytest.raises(CheckpointError, match=r"deleted or replaced during the run") as raised:
        job.run(out, callback=At(2, 4, "train", delete))
    assert str(out / "checkpoint_002") in str(raised.value)
    assert "MB are free" not in str(raised.value)
    assert not out.exists() or list(out.iterdir()) == []


def test_a_second_run_in_one_folder_is_refused_and_the_first_continues(tmp_path, reference):
    out = tmp_path / "out"
    refused = []

    def start_another() -> None:
        for resume in (None, "auto"):
            with pytest.raises(CheckpointError, match="is in use by another run") as raised:
                job.run(out, resume=resume)
            refused.append(str(raised.value))

    result = job.run(out, callback=At(2, 4, "train", start_another), options=job.EVERY_3)
    assert len(refused) == 2
    assert all(str(out) in said for said in refused)
    assert job.report(result, out) == reference
