"""A checkpoint metric that does not tell the epochs apart is said at the end of a run."""

import re

from tiny import config, mlp, points

import medjax


class Constant:
    def prepare_batch(self, output, batch):
        return {"true": list(batch["labels"])}

    def compute(self, columns):
        return {"n": 1.0}


def train(folder, nb_epochs, metric):
    run = config(folder, nb_training_epochs=nb_epochs, checkpoint_metric=metric)
    data, scored = points(8), points(4, seed=1)
    return medjax.train(mlp(), run, data, scored, metrics_computer=Constant(), callback=[])


def test_a_checkpoint_metric_that_is_always_the_same_is_said(tmp_path, caplog):
    for number, (nb_epochs, metric) in enumerate([(1, "n"), (2, "loss")]):
        train(tmp_path / str(number), nb_epochs, metric)
    assert "tells no epoch" not in caplog.text
    best = train(tmp_path / "equal", 2, "n").best_checkpoint
    told = f"'n' was 1 in all 2 evaluations, so it .* best checkpoint, {best.name}, is only"
    assert re.search(told, caplog.text)
    assert best.name.startswith("checkpoint_001")
