"""What `train(resume=...)` resumes from, and what it refuses."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import jax
import job
import numpy as np
import optax
import pytest
import yaml
from breaking import At, DiedError, die

import medjax

CODE_OR_PICKLE = (b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")


@pytest.fixture
def out(saved: Path, tmp_path: Path) -> Path:
    """Return a copy of the folder of the run that died in epoch 3."""
    return Path(shutil.copytree(saved, tmp_path / "out"))


def test_auto_in_an_empty_or_missing_folder_starts_a_new_run(tmp_path, reference):
    assert job.report(
        job.run(tmp_path / "deep" / "out", resume="auto"), tmp_path / "deep" / "out"
    ) == (reference)


def test_auto_resumes(out, reference):
    assert job.report(job.run(out, resume="auto"), out) == reference


def test_a_path_resumes(out, reference):
    result = job.run(out, resume=medjax.last_checkpoint(out))
    assert job.report(result, out) == reference


def test_a_path_into_another_folder(out, tmp_path, reference):
    before = sorted(out.rglob("*"))
    other = tmp_path / "other"
    result = job.run(other, resume=str(medjax.last_checkpoint(out)))
    report = job.report(result, other)
    assert report["state"] == reference["state"]
    assert report["history"] == reference["history"]
    assert sorted(out.rglob("*")) == before


def test_none_starts_a_new_run_and_keeps_other_checkpoints(out, reference):
    others = {path.name for path in out.iterdir()}
    result = job.run(out)
    report = job.report(result, out)
    assert report["state"] == reference["state"]
    assert others < {path.name for path in out.iterdir()}
    assert medjax.last_checkpoint(out) == result.last_checkpoint
    assert medjax.best_checkpoint(out) == result.best_checkpoint


@pytest.mark.parametrize("resume", ["no/such/folder", "Auto"])
def test_a_missing_path(out, resume):
    with pytest.raises(medjax.CheckpointError, match="no such folder"):
        job.run(out, resume=resume)


def test_a_completed_run_returns_at_once(tmp_path, reference):
    out = tmp_path / "out"
    job.run(out)
    files = {path: path.stat().st_mtime_ns for path in out.rglob("*")}
    result = job.run(out, resume="auto", callback=At(1, 0, "train", die))
    assert job.report(result, out) == reference
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*")} == files


def test_superseded_checkpoints_left_by_a_kill_are_deleted(tmp_path, monkeypatch, reference):
    """As if the run was killed between the last commit and the deletion of the previous one."""
    out = tmp_path / "out"
    with monkeypatch.context() as patched:
        patched.setattr(medjax.CheckpointStore, "_delete_superseded", lambda self: None)
        job.run(out, options=job.EVERY_3)
    assert len(list(out.iterdir())) > 2
    assert job.report(job.run(out, resume="auto"), out) == reference


def test_more_epochs_equal_a_longer_run(tmp_path):
    long = job.run(tmp_path / "long", nb_training_epochs=3)
    job.run(tmp_path / "short", nb_training_epochs=2)
    extended = job.run(tmp_path / "short", nb_training_epochs=3, resume="auto")
    assert extended.history == long.history
    assert job.digest(extended.state) == job.digest(long.state)


class StopAt(medjax.TrainerCallback):
    def __init__(self, epoch: int, batch: int | None) -> None:
        self.epoch, self.batch, self.current_epoch = epoch, batch, 0

    def on_epoch_begin(self, epoch: int) -> None:
        self.current_epoch = epoch

    def on_step_end(self, step_idx: int, phase: str) -> None:
        if (self.current_epoch, step_idx, phase) == (self.epoch, self.batch, "train"):
            raise medjax.StopTraining("enough")

    def on_epoch_end(self, epoch: int) -> None:
        if (epoch, None) == (self.epoch, self.batch):
            raise medjax.StopTraining("enough")


@pytest.mark.parametrize("batch", [None, 4])
def test_a_stopped_run_stays_stopped(batch, tmp_path):
    out = tmp_path / "out"
    first = job.run(out, callback=StopAt(2, batch))
    assert (first.stop_reason, len(first.history)) == ("enough", 2)
    again = job.run(out, callback=StopAt(2, batch), resume="auto")
    assert job.report(again, out) == job.report(first, out)


def test_a_run_that_died_while_it_was_stopping(tmp_path):
    """The epoch that a callback cut short still gets its evaluation and its checkpoint."""
    wanted = job.run(tmp_path / "wanted", callback=StopAt(2, 5))
    out = tmp_path / "out"
    with pytest.raises(DiedError):
        # batch 5 is the sixth: a checkpoint is due right after the stop
        job.run(out, callback=[StopAt(2, 5), At(2, 0, "eval", die)], options=job.EVERY_3)
    result = job.run(out, callback=StopAt(2, 5), resume="auto")
    assert result.history == wanted.history
    assert job.digest(result.state) == job.digest(wanted.state)
    assert len(result.history) == 2


def test_a_run_that_was_interrupted_between_a_stop_and_its_update(tmp_path):
    """Two batches make an update: a stop at the first of them waits for the second."""
    wanted = job.run(tmp_path / "wanted", callback=StopAt(2, 4))
    out = tmp_path / "out"
    with pytest.raises(DiedError):
        # batch 4 is the fifth, saved with the request to stop; the process dies after it
        job.run(
            out,
            callback=[StopAt(2, 4), At(2, 5, "train", die)],
            options={"save_interval_steps": 5},
        )
    record = json.loads((medjax.last_checkpoint(out) / "training_state.json").read_text())
    assert (record["progress"]["batch"], record["progress"]["stop_reason"]) == (5, "enough")
    result = job.run(out, callback=StopAt(9, None), resume="auto")
    assert int(result.state.batch_step) == 13 + 6
    assert result.history == wanted.history
    assert job.digest(result.state) == job.digest(wanted.state)


def test_a_run_without_evaluation(tmp_path):
    def run(out, **more):
        config = medjax.TrainerConfig(out, **{**job.DEFAULTS, "nb_training_epochs": 2})
        options = medjax.Options(save_interval_steps=5, length_ladder=(8,), max_steps=10)
        return medjax.train(job.component(), config, job.items(), options=options, **more)

    wanted = run(tmp_path / "wanted", callback=[])
    with pytest.raises(DiedError):
        run(tmp_path / "out", callback=At(1, 11, "train", die))
    result = run(tmp_path / "out", callback=[], resume="auto")
    assert result.history == wanted.history
    assert job.digest(result.state) == job.digest(wanted.state)
    assert result.best_checkpoint is None
    assert int(result.state.step) == 10


def test_no_checkpoint_holds_what_is_not_finite(tmp_path):
    data = job.items()
    for index in medjax.epoch_order(11, 1, len(data))[5 * 16 : 6 * 16]:
        data[index]["scale"] = np.nan
    out = tmp_path / "out"
    with pytest.raises(medjax.NonFiniteError):
        job.run(out, data=data, options={"save_interval_steps": 1, "length_window": 0})
    weights = job.component().load(medjax.last_checkpoint(out))
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(weights))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"batch_size": 8}, "batch_size was 16, but now it is 8"),
        ({"seed": 12}, "seed was 11, but now it is 12"),
        ({"data": job.items(202)}, "items was 203, but now it is 202"),
        ({"options": {"length_window": 5}}, "length_window was 4, but now it is 5"),
        ({"gradient_accumulation_steps": 1}, "gradient_accumulation_steps was 2"),
        ({"gradient_accumulation_steps": 3}, "gradient_accumulation_steps was 2"),
    ],
)
def test_a_position_in_different_data_is_refused(out, change, said):
    before = sorted(out.rglob("*"))
    with pytest.raises(medjax.MismatchError, match=said):
        job.run(out, resume="auto", **change)
    assert sorted(out.rglob("*")) == before


def test_data_may_change_between_epochs(tmp_path):
    out = tmp_path / "out"
    job.run(out, nb_training_epochs=1)
    result = job.run(out, nb_training_epochs=2, resume="auto", batch_size=32, data=job.items(100))
    assert len(result.history) == 2


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"parts": job.component(width=12)}, r"float32 of shape \(20, 16\).*expected.*\(20, 12\)"),
        (
            {"parts": job.component(optimizer=optax.sgd)},
            r"\.count: found int32 of shape \(\), expected nothing",
        ),
    ],
)
def test_another_model_or_optimizer_is_refused(out, change, said):
    before = sorted(out.rglob("*"))
    with pytest.raises(medjax.MismatchError, match=said):
        job.run(out, resume="auto", **change)
    assert sorted(out.rglob("*")) == before


def test_a_state_that_cannot_be_stored_is_refused_at_the_start(tmp_path):
    plain = job.component()

    def init(key):
        variables = plain.init(key)
        variables["params"]["hidden.kernel"] = variables["params"]["out"]
        return variables

    with pytest.raises(medjax.CheckpointError, match="would both be stored as"):
        job.run(tmp_path / "out", parts=plain._replace(init=init), callback=At(1, 0, "train", die))


def test_what_a_checkpoint_holds(out):
    checkpoint = medjax.last_checkpoint(out)
    config = yaml.safe_load((checkpoint / "trainer_config.yml").read_text(encoding="utf-8"))
    assert medjax.TrainerConfig("anywhere", **config).to_dict() == config
    assert list(config)[:3] == ["learning_rate", "nb_training_epochs", "dataloader_nb_workers"]
    variables = job.component().load(checkpoint)
    assert jax.tree.map(np.shape, variables) == jax.tree.map(
        np.shape, job.component().init(jax.random.key(0))
    )
    record = json.loads((checkpoint / "training_state.json").read_text(encoding="utf-8"))
    assert record["format"] == 1
    for path in checkpoint.rglob("*"):
        assert path.is_dir() or not path.read_bytes().startswith(CODE_OR_PICKLE), path
        assert path.suffix not in (".pkl", ".pickle", ".pt", ".bin")


def test_the_folder_holds_checkpoints_only(tmp_path):
    out = tmp_path / "out"
    result = job.run(out, nb_training_epochs=2, options=job.EVERY_3)
    assert set(out.iterdir()) == {result.best_checkpoint, result.last_checkpoint}
    result = job.run(
        tmp_path / "all",
        nb_training_epochs=2,
        options={**job.EVERY_3, "keep_all_checkpoints": True},
    )
    assert len(list((tmp_path / "all").iterdir())) == 2 * (4 + 1)  # 3, 6, 9, 12 and the end


def test_the_last_checkpoint_exists_at_on_train_end(tmp_path):
    seen = []

    class Look(medjax.TrainerCallback):
        def on_save(self, checkpoint_dir: str) -> None:
            assert not Path(checkpoint_dir).exists()
            self.path = Path(checkpoint_dir)

        def on_train_end(self) -> None:
            seen.append((self.path / "manifest.json").is_file())

    job.run(tmp_path / "out", nb_training_epochs=1, callback=Look())
    assert seen == [True]
