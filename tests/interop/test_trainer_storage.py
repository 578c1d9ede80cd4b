"""A Trainer's folders: one run at a time, disk space is checked, failed saves leave nothing."""

from collections import namedtuple

import pytest
from trained import Classifier, make, same, weights

from medjax.checkpoint import CheckpointError, space

Usage = namedtuple("Usage", "total used free")


class Refusing(Classifier):
    """Fails during a save, after writing half of its file."""

    def save(self, path):
        (path / "half.pt").write_bytes(bytes(2_000_000))
        raise OSError(28, "No space left on device")


def test_a_second_trainer_is_refused_and_the_first_continues(tmp_path):
    said = []

    class Another:
        def on_step_end(self, step_idx, nb_batches, phase):
            if not said:
                with pytest.raises(CheckpointError, match="in use by another run") as raised:
                    make(tmp_path).train()
                said.append(str(raised.value))

    trainer = make(tmp_path, callback=Another(), nb_training_epochs=1)
    assert len(trainer.train()) == 1
    assert str(tmp_path) in said[0]
    assert list(tmp_path.iterdir()) == [trainer.last_checkpoint]


def test_missing_disk_space_is_detected_before_training(tmp_path, monkeypatch):
    monkeypatch.setattr(space.shutil, "disk_usage", lambda folder: Usage(10**9, 0, 5_000))
    component = Classifier()
    before = weights(component)
    with pytest.raises(CheckpointError, match="3 will be stored there at once"):
        make(tmp_path, component).train()
    assert same(before, weights(component))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("training", [True, False])
def test_a_failed_save_frees_its_space(tmp_path, training):
    trainer = make(tmp_path, Refusing(), nb_training_epochs=1)
    with pytest.raises(CheckpointError, match="No space left on device") as raised:
        trainer.train() if training else trainer.save(1)
    assert str(tmp_path / "checkpoint_001_") in str(raised.value)
    assert "needs about 2.0 MB" in str(raised.value)
    assert "MB are free there" in str(raised.value)
    assert list(tmp_path.iterdir()) == []
