"""A best checkpoint that was damaged is noticed when its run is resumed."""

import shutil

import pytest
from resumed_runs import run
from stored import layout, names, put, tree
from tiny import mlp

import medjax
from medjax import CheckpointStore


def resume(folder, then=()):
    """Resume the run of a folder, save more checkpoints, and return the best and all names."""
    with CheckpointStore(folder, "reader") as store:
        store.restore("auto", tree(), layout(tree()))
        for value, metric in then:
            put(store, value, metric)
        return store.best, names(folder)


@pytest.fixture
def folder(tmp_path):
    with CheckpointStore(tmp_path, "run") as store:
        for value, metric in ((1.0, 0.3), (2.0, 0.1), (3.0, 0.2)):
            put(store, value, metric)
    return tmp_path


DAMAGES = {
    "own file cut": lambda best: (best / "own.txt").write_text("2"),
    "own file changed": lambda best: (best / "own.txt").write_text("9.0"),
    "arrays gone": lambda best: shutil.rmtree(best / "training_state"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_best_is_set_aside_and_the_next_best_kept(damage, folder, caplog):
    best, last = medjax.best_checkpoint(folder), medjax.last_checkpoint(folder)
    assert best != last
    DAMAGES[damage](best)
    found, left = resume(folder)
    assert found == last
    assert left == sorted([f"corrupt_{best.name}", last.name])
    assert f"set aside as corrupt_{best.name}" in caplog.text
    assert f"{best.name} was the best checkpoint; the best is one of the others" in caplog.text
    found, left = resume(folder, [(4.0, 0.5), (5.0, 0.4)])  # worse than 0.2
    assert found == last
    assert len(left) == 3


def test_an_intact_best_stays(folder, caplog):
    best = medjax.best_checkpoint(folder)
    found, left = resume(folder, [(4.0, 0.5)])
    assert found == best
    assert len(left) == 2
    assert not caplog.records


def test_what_cannot_be_set_aside_is_told(folder, caplog, monkeypatch):
    best = medjax.best_checkpoint(folder)
    DAMAGES["own file cut"](best)

    def refuse(self, target):
        raise PermissionError("not allowed")

    with monkeypatch.context() as patched:
        patched.setattr(type(best), "rename", refuse)
        assert resume(folder)[0] == best
    assert "it cannot be set aside (not allowed)" in caplog.text


def test_a_run_never_names_a_damaged_checkpoint_as_its_best(tmp_path):
    first = run(tmp_path, epochs=3, component=mlp(), learning_rate=0.5, checkpoint_metric="loss",
                minimize_checkpoint_metric=False)  # fmt: skip
    assert first.best_checkpoint != first.last_checkpoint
    weights = first.best_checkpoint / "weights.npz"
    weights.write_bytes(weights.read_bytes()[:50])
    more = {"component": mlp(), "learning_rate": 0.5, "minimize_checkpoint_metric": False}
    resumed = run(tmp_path, epochs=4, resume="auto", **more)
    assert resumed.best_checkpoint != first.best_checkpoint
    assert mlp().load(resumed.best_checkpoint)
