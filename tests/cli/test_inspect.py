"""``python -m medjax inspect``: what it tells of checkpoints and runs, sound and damaged."""

import json
import pickle
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import optax
import pytest
import trained_folders
from tiny import config, mlp, points

import medjax
from medjax import CheckpointStore, Options, distributed
from medjax.checkpoint.lock import FolderLock
from medjax.checkpoint.progress import Progress, progress_record
from medjax.cli import main
from medjax.components import TokenClassification

NB_ITEMS, EPOCHS = 24, 3


class Exploding:
    """A pickle of this fails the test when it is opened."""

    def __reduce__(self):
        return pytest.fail, ("a pickle was opened",)


def save_pickle(path, variables):
    (path / "model.pt").write_bytes(pickle.dumps(Exploding()))


class StopAt:
    def __init__(self, nb_steps):
        self.left = nb_steps

    def on_step_end(self, phase, **_):
        self.left -= phase == "train"
        if self.left == 0:
            raise KeyboardInterrupt


@pytest.fixture(scope="module")
def interrupted(tmp_path_factory):
    """A run of three epochs of six batches that was interrupted in its second one."""
    folder = tmp_path_factory.mktemp("runs") / "checkpoints"
    component = mlp(optimizer=optax.adam)._replace(save=save_pickle)
    with pytest.raises(KeyboardInterrupt):
        medjax.train(
            component,
            config(folder, nb_training_epochs=EPOCHS),
            points(NB_ITEMS),
            points(9, seed=1),
            options=Options(save_interval_steps=3, weight_decay=0.01),
            callback=StopAt(10),
        )
    return folder


@pytest.fixture
def run(interrupted, tmp_path):
    """A copy of it that a test may damage."""
    return shutil.copytree(interrupted, tmp_path / "run" / "checkpoints")


@pytest.fixture
def inspect(capsys):
    """Return a function that returns the exit status and the object of JSON."""

    def call(path):
        status = main(["inspect", str(path), "--json"])
        return status, json.loads(capsys.readouterr().out)

    return call


def names_in(folder):
    return sorted(path.name for path in folder.iterdir())


def flip(file):
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)


def test_a_run_lists_its_checkpoints_and_what_would_be_resumed(inspect, run):
    status, found = inspect(run.parent)  # the folder above will do
    assert (status, found["kind"], found["locked by"]) == (0, "run", None)
    newest, first = found["checkpoints"]
    assert (newest["epoch"], newest["batch"], newest["best"], newest["last"]) == (2, 3, False, True)
    assert (first["epoch"], first["batch"], first["best"], first["last"]) == (2, 0, True, False)
    assert found["auto"] == {"chosen": newest["name"], "set aside": []}
    resume = found["chosen"]["resume"]
    assert (resume["epoch"], resume["batch"], resume["batches in an epoch"]) == (2, 3, 6)
    assert (resume["epochs"], resume["finished"]) == (EPOCHS, False)
    assert resume["must not change"]["items"] == NB_ITEMS
    assert resume["must not change"]["seed"] == 7


def test_the_text_says_the_same(run, capsys):
    assert main(["inspect", str(run)]) == 0
    text = capsys.readouterr().out
    for told in (
        "checkpoints: sound",
        "epoch 2, batch 3 ",
        "epoch 2 of 3, after batch 3 of 6",
        'it is what resume="auto" takes',
        "batch_size=4",
        "weight_decay=0.01",
        "remembers mu (268 bytes), nu (268 bytes)",
        "model.pt",
    ):
        assert told in text
    assert "max_grad_norm" not in text  # as by default


def test_arrays_are_summarized(inspect, run):
    found = inspect(run)[1]["chosen"]
    groups = {group["name"]: group for group in found["arrays"]}
    params = groups["params"]
    assert (params["nb_arrays"], params["nb_elements"], params["nb_bytes"]) == (4, 67, 4 * 67)
    assert params["largest"] == ".params['w1'] (4, 8)"
    assert groups["opt_state nu"]["nb_bytes"] == 4 * 67


def test_every_damage_is_named_and_the_one_before_it_chosen(inspect, run):
    sound = inspect(run)[1]
    newest, before = (row["name"] for row in sound["checkpoints"])
    flip(run / newest / "model.pt")
    (run / newest / "trainer_config.yml").unlink()
    (run / newest / "training_state" / "more").write_text("")
    before_it = names_in(run)
    status, found = inspect(run / newest)
    assert (status, found["sound"]) == (1, False)
    told = "\n".join(found["damage"])
    assert "model.pt differs from what was saved" in told
    assert "lacks the file trainer_config.yml" in told
    assert "training_state/more is not listed" in told
    status, found = inspect(run)
    assert status == 1
    assert found["damage"] == told.split("\n")
    assert found["auto"] == {"chosen": before, "set aside": [newest]}
    assert found["chosen"]["path"].endswith(before)
    assert names_in(run) == before_it
    with CheckpointStore(run, "another") as store:  # which sets it aside
        assert store.find("auto").path.name == before


def test_damage_is_printed(run, capsys):
    (newest,) = run.glob("*_batch_*")
    flip(newest / "training_state.json")
    (other,) = run.glob("checkpoint_001_2*")
    flip(other / "model.pt")
    assert main(["inspect", str(other)]) == 1
    assert "is refused, as it is damaged; it stands at: from the begin" in capsys.readouterr().out
    flip(other / "model.pt")
    assert main(["inspect", str(newest)]) == 1
    text = capsys.readouterr().out
    assert f"{newest}: DAMAGED" in text
    assert "is refused" in text
    assert main(["inspect", str(run)]) == 1
    assert f"{newest.name} is damaged and will be set aside" in capsys.readouterr().out


def test_a_run_of_damaged_checkpoints_has_none_to_resume(inspect, run):
    for folder in run.iterdir():
        flip(folder / "training_state.json")
    status, found = inspect(run)
    assert (status, found["chosen"]) == (1, None)
    assert "every checkpoint" in found["auto"]["problem"]


def test_an_older_checkpoint_says_that_auto_takes_another(run, capsys):
    (older,) = run.glob("checkpoint_001_2*")
    (newest,) = run.glob("*_batch_*")
    assert main(["inspect", str(older)]) == 0
    text = capsys.readouterr().out
    assert f"takes another in its folder: {newest.name}" in text
    assert "from the beginning of epoch 2 of 3" in text


def test_versions_that_differ_are_told(run, monkeypatch, capsys):
    now = {**distributed.versions(), "jax": "0.12.9"}
    monkeypatch.setattr(distributed, "versions", lambda: now)
    main(["inspect", str(run)])
    assert "-> 0.12.9" in capsys.readouterr().out


def test_a_run_that_is_going_on_is_told(inspect, run):
    lock = FolderLock(run)
    lock.acquire()
    assert "process " in inspect(run)[1]["locked by"]
    lock.release()
    assert inspect(run)[1]["locked by"] is None


def test_a_component_of_medjax_is_named_with_its_classes(inspect, tmp_path):
    encoder = trained_folders.write_encoder(tmp_path / "encoder")
    tagger = TokenClassification.from_pretrained(encoder, ["Drug"], max_length=24)
    saved = trained_folders.save(tagger, tmp_path / "tagger")
    progress = Progress(seed=1, data={}, schedule={"learning_rate": 0.1})
    with CheckpointStore(tmp_path / "run", "it") as store:
        path = store.new_path(1)
        store.save(
            path,
            {"w": np.ones(3, np.float32)},
            progress_record(progress),
            metric=None,
            config={},
            write_files=lambda folder: shutil.copytree(saved, folder, dirs_exist_ok=True),
            block=True,
        )
    status, found = inspect(path)
    component = found["component"]
    assert status == 0
    assert component["class"] == "TokenClassification"
    assert component["classes"] == ["O", "B-Drug", "I-Drug"]
    assert component["max_length"] == 24
    assert "model.safetensors" in component["files"]


def test_a_checkpoint_of_medkit_has_weights_only(inspect, tmp_path):
    (tmp_path / "trainer_config.yml").write_text("learning_rate: 0.1\n")
    (tmp_path / "optimizer.pt").write_bytes(pickle.dumps(Exploding()))
    status, found = inspect(tmp_path)
    assert status == 0
    assert "medkit" in found["written by"]
    assert found["settings"] == {"learning_rate": 0.1}
    assert "weights only" in found["resume"]["problem"]


def test_what_is_neither_is_refused(tmp_path, capsys):
    assert main(["inspect", str(tmp_path)]) == 2
    assert "expected a checkpoint, or the output folder of a run" in capsys.readouterr().err
    assert main(["inspect", str(tmp_path / "gone")]) == 2
    assert main(["inspect", __file__]) == 2


def test_no_device_is_taken_and_no_torch_imported(interrupted):
    code = (
        "import sys\n"
        "from medjax.cli import main\n"
        f"assert main(['inspect', {str(interrupted)!r}]) == 0\n"
        "from jax._src import xla_bridge\n"
        "assert not xla_bridge._backends\n"
        "assert 'torch' not in sys.modules\n"
    )
    root = Path(medjax.__file__).parents[1]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
