"""Resuming a run with another metric: plateau, best checkpoint, early stopping."""

import json
import shutil

import pytest
from resumed_runs import EVAL, Dies, Scores, rates_of, run

import medjax
from medjax.checkpoint.manifest import write_manifest


def plateau_run(folder, **more):
    """Three epochs in which the rate is halved after the second."""
    more = {"epochs": 3, "schedule": halving(), "metric_to_track_lr": "falling"} | more
    return run(folder, metrics_computer=Scores(), **more)


def halving(mode="max"):
    return medjax.reduce_on_plateau(mode=mode, factor=0.5, patience=0)


def test_plateau_keeps_what_it_has_seen_unless_that_was_of_something_else(tmp_path, caplog):
    first = plateau_run(tmp_path / "out")
    assert rates_of(first)[0] == 0.025  # the first evaluation is the best, two are worse

    def go_on(name, **more):
        out = shutil.copytree(tmp_path / "out", tmp_path / name)
        caplog.clear()
        record = plateau_run(out, epochs=4, resume="auto", **more).last_checkpoint
        return json.loads((record / "training_state.json").read_text())["progress"]["schedule"]

    # A new computer of scores starts again at 1: not better than the best, so the rate falls.
    same = go_on("same")
    assert (same["learning_rate"], same["best"]) == (0.0125, 1.0)
    assert not caplog.records
    other_metric = go_on("metric", metric_to_track_lr="loss", schedule=halving("min"))
    assert other_metric["learning_rate"] == 0.025  # kept; the first value it sees is the best
    assert "what it had seen of the metric is dropped" in caplog.text
    other_rate = go_on("rate", learning_rate=0.4)
    assert other_rate["learning_rate"] == 0.4
    constant = go_on("constant", schedule=None)
    assert constant == {"learning_rate": 0.1}


def test_checkpoints_are_compared_by_the_metric_that_counts_now(tmp_path):
    out = tmp_path / "out"
    first = run(out, epochs=2, metrics_computer=Scores(), checkpoint_metric="falling")
    by_falling = first.best_checkpoint  # the lower the better: the second
    assert by_falling == first.last_checkpoint
    options = {"keep_all_checkpoints": True}
    again = run(
        out,
        epochs=3,
        resume="auto",
        metrics_computer=Scores(),
        checkpoint_metric="falling",
        minimize_checkpoint_metric=False,
        options=options,
    )
    values = {
        path.name[:14]: json.loads((path / "training_state.json").read_text())["metric"]
        for path in out.iterdir()
    }
    best = max(values, key=values.get)
    assert again.best_checkpoint.name[:14] == best == medjax.best_checkpoint(out).name[:14]


def test_a_checkpoint_that_cannot_be_compared_is_kept(tmp_path):
    out = tmp_path / "out"
    first = run(out, epochs=2)  # by loss; without a metrics computer there is nothing else
    again = run(
        out, epochs=5, resume="auto", metrics_computer=Scores(), checkpoint_metric="falling"
    )
    assert first.best_checkpoint.is_dir()
    assert again.best_checkpoint != first.best_checkpoint


def test_a_change_of_metric_does_not_compare_values_of_two(tmp_path):
    out = tmp_path / "out"
    run(out, epochs=2, metrics_computer=Scores())
    # The loss is above every accuracy: as numbers the old ones would win for ever.
    result = run(
        out,
        epochs=3,
        resume="auto",
        metrics_computer=Scores(),
        checkpoint_metric="accuracy",
        minimize_checkpoint_metric=False,
    )
    rows = [row["eval"]["accuracy"] for row in result.history]
    kept = {int(path.name[11:14]): rows[int(path.name[11:14]) - 1] for path in out.iterdir()}
    assert kept[int(result.best_checkpoint.name[11:14])] == max(kept.values())


def stopped(folder, **more):
    return run(folder, metrics_computer=Scores(), checkpoint_metric="falling",
               minimize_checkpoint_metric=False, **more)  # fmt: skip


def test_early_stopping_goes_by_the_patience_that_is_set_now(tmp_path, caplog):
    first = stopped(tmp_path / "out", epochs=6, options={"early_stopping_patience": 2})
    assert len(first.history) == 3
    for name, options, nb_epochs in (
        ("same", {"early_stopping_patience": 2}, 3),
        ("more", {"early_stopping_patience": 3}, 4),
        ("none", {}, 6),
    ):
        caplog.clear()
        out = shutil.copytree(tmp_path / "out", tmp_path / name)
        result = stopped(out, epochs=6, resume="auto", options=options)
        assert len(result.history) == nb_epochs, name
        assert ("it continues" in caplog.text) == (nb_epochs > 3)
    other = shutil.copytree(tmp_path / "out", tmp_path / "metric")
    caplog.clear()
    result = run(other, epochs=6, resume="auto", metrics_computer=Scores(),
                 options={"early_stopping_patience": 2})  # fmt: skip
    assert len(result.history) > 3
    assert "early stopping starts counting again: metric is" in caplog.text
    assert "it was 'falling' in the checkpoint" in caplog.text


class OtherScores(Scores):
    pass


def test_another_metrics_computer_within_an_epoch_whose_scores_it_shares(tmp_path):
    fields = {"do_metrics_in_training": True}
    with pytest.raises(RuntimeError):
        run(tmp_path, epochs=2, metrics_computer=Scores(), options={"save_interval_steps": 2},
            callback=Dies(2, 3), **fields)  # fmt: skip
    with pytest.raises(
        medjax.MismatchError, match="metrics computer was 'Scores', but now it is 'O"
    ):
        run(tmp_path, epochs=2, resume="auto", metrics_computer=OtherScores(), **fields)
    without = run(tmp_path, epochs=2, resume="auto", metrics_computer=OtherScores())
    assert len(without.history) == 2


@pytest.mark.parametrize(("epochs_seen", "is_worse"), [(1, True), (-0.9, False)])
def test_a_branch_that_is_worse_than_where_it_began_says_so(
    tmp_path, caplog, epochs_seen, is_worse
):
    """Of `falling`, of which more is better here, the first epoch has the most."""
    settings = {"checkpoint_metric": "falling", "minimize_checkpoint_metric": False}
    options = {"keep_all_checkpoints": True}
    first = run(tmp_path, epochs=2, metrics_computer=Scores(), options=options, **settings)
    assert not caplog.records
    computer = Scores()
    computer.epoch = epochs_seen
    branch = run(
        tmp_path,
        epochs=3,
        metrics_computer=computer,
        options=options,
        resume=first.best_checkpoint,
        **settings,
    )
    assert branch.best_checkpoint != first.best_checkpoint
    said = f"before this run branched off {first.best_checkpoint}; the best checkpoint of this run"
    assert (said in caplog.text) == is_worse


def name_of_best(result):
    return result.best_checkpoint.name[:14]


@pytest.mark.parametrize("within", [False, True])
def test_scores_of_other_evaluation_data_are_not_compared(tmp_path, caplog, within):
    """The first ones are higher, so that compared they would win for ever."""
    options = {"early_stopping_patience": 2, "save_interval_steps": 2}
    plateau = {"schedule": halving(), "metric_to_track_lr": "falling"}
    if within:
        with pytest.raises(RuntimeError):
            stopped(tmp_path, epochs=3, eval_data=EVAL[:4], options=options,
                    callback=Dies(3, 3), **plateau)  # fmt: skip
    else:
        stopped(tmp_path, epochs=2, eval_data=EVAL[:4], options=options, **plateau)
    caplog.clear()
    computer = Scores()
    computer.epoch = 3
    settings = {
        "metrics_computer": computer,
        "checkpoint_metric": "falling",
        "minimize_checkpoint_metric": False,
        "resume": "auto",
    }
    third = run(tmp_path, epochs=3, options=options, **settings, **plateau)
    assert "evaluation data has 9 items, but it had 4 when the checkpoint was sa" in caplog.text
    assert third.stop_reason is None
    assert name_of_best(third) == "checkpoint_003"
    assert rates_of(third)[0] == 0.05  # halved by the second epoch, and not by the third
    caplog.clear()
    result = run(tmp_path, epochs=9, options=options, **settings)
    assert len(result.history) == 5
    assert name_of_best(result) == medjax.best_checkpoint(tmp_path).name[:14] == "checkpoint_003"
    assert "evaluation" not in caplog.text


def test_evaluation_data_that_a_checkpoint_does_not_tell_are_taken_for_the_same(tmp_path, caplog):
    first = stopped(tmp_path, epochs=1)
    file = first.last_checkpoint / "training_state.json"
    record = json.loads(file.read_text())
    assert record["progress"]["data"].pop("eval_items") == 9
    file.write_text(json.dumps(record))
    (first.last_checkpoint / "manifest.json").unlink()
    write_manifest(first.last_checkpoint)
    result = stopped(tmp_path, epochs=2, eval_data=EVAL[:4], resume="auto")
    assert name_of_best(result) == "checkpoint_001"
    assert "evaluation data" not in caplog.text
