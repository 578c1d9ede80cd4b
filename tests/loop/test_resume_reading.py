"""A run that is resumed with items read otherwise: told, and scores not compared."""

import json
import logging

import pytest
from resumed_runs import Dies, run
from tiny import mlp

import medjax
from medjax.checkpoint.manifest import write_manifest


def reading(length):
    return mlp()._replace(reading={"max_length": length})


def test_items_that_are_read_otherwise_are_told_and_scores_not_compared(tmp_path, caplog):
    # The loss that is highest is the best: that of the first epoch, by far.
    more = {"minimize_checkpoint_metric": False, "learning_rate": 0.01}
    first = run(tmp_path, epochs=2, component=reading(32), **more)
    again = run(tmp_path, epochs=3, component=reading(16), resume="auto", **more)
    losses = [row["eval"]["loss"] for row in again.history]
    assert losses[0] > losses[2]
    assert "max_length was 32 and is 16 now: losses and scores before and after are" in caplog.text
    assert "go by the evaluations from epoch 3 on" in caplog.text
    assert again.best_checkpoint == again.last_checkpoint != first.best_checkpoint
    assert first.best_checkpoint.is_dir()
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        run(tmp_path, epochs=4, component=reading(16), resume="auto", **more)
    assert "max_length" not in caplog.text


@pytest.mark.parametrize("length", [32, 16])
def test_plateaus_and_patience_start_again(length, tmp_path):
    def go(length, epochs, resume=None):
        watching = medjax.EarlyStopping("loss", 9, minimize=False)
        result = run(
            tmp_path, epochs=epochs, component=reading(length), resume=resume, callback=watching,
            schedule=medjax.reduce_on_plateau("max", patience=9), learning_rate=0.01,
        )  # fmt: skip
        file = result.last_checkpoint / "training_state.json"
        best = json.loads(file.read_text())["progress"]["schedule"]["best"]
        losses = [row["eval"]["loss"] for row in result.history]
        return losses, [losses.index(value) for value in (best, watching.state_dict()["best"])]

    losses, best = go(32, 2)
    assert losses[0] > losses[1]
    assert best == [0, 0]  # the highest loss, of the first epoch
    assert go(length, 3, "auto")[1] == ([0, 0] if length == 32 else [2, 2])


def test_within_an_epoch_another_reading_is_refused(tmp_path):
    with pytest.raises(RuntimeError):
        run(
            tmp_path, epochs=2, component=reading(32), callback=Dies(1, 4),
            options={"save_interval_steps": 2},
        )  # fmt: skip
    with pytest.raises(medjax.MismatchError, match=r"where reading was \{'max_length': 32\}, but"):
        run(tmp_path, epochs=2, component=reading(16), resume="auto")
    assert len(run(tmp_path, epochs=2, component=reading(32), resume="auto").history) == 2


@pytest.mark.parametrize("within", [True, False])
def test_a_checkpoint_of_an_earlier_version_goes_on(within, tmp_path, caplog):
    options = {"save_interval_steps": 2}
    if within:
        with pytest.raises(RuntimeError):
            run(tmp_path, epochs=2, component=reading(32), callback=Dies(1, 4), options=options)
    else:
        run(tmp_path, epochs=1, component=reading(32), options=options)
    path = medjax.last_checkpoint(tmp_path)
    file = path / "training_state.json"
    record = json.loads(file.read_text())
    del record["progress"]["settings"]["reading"]
    file.write_text(json.dumps(record))
    (path / "manifest.json").unlink()
    write_manifest(path)
    result = run(tmp_path, epochs=2, component=reading(16), resume="auto", options=options)
    assert len(result.history) == 2
    assert "max_length" not in caplog.text
