"""The page that is written after each epoch: killed and resumed runs, and pages that fail."""

import logging
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from tiny import config, mlp, points

import medjax
from medjax import Options, ReportWriter, TrainerCallback

TESTS = Path(__file__).parents[1]


class StopsIn(TrainerCallback):
    """Interrupts a run in an epoch."""

    def __init__(self, epoch):
        self.epoch = epoch

    def on_epoch_begin(self, epoch):
        if epoch == self.epoch:
            raise KeyboardInterrupt


def train(folder, *callbacks, resume=None, **settings):
    chosen = config(folder / "checkpoints", nb_training_epochs=3, **settings)
    return medjax.train(
        mlp(), chosen, points(8), points(4), callback=list(callbacks), resume=resume
    )


def page_of(folder):
    return (folder / "report.html").read_text(encoding="utf-8")


def epochs_in(page):
    """Return the rows of the table of epochs, as lists of cells."""
    table = page[page.index("<summary>Epochs") : page.index("<summary>Settings")]
    rows = table.split("<tr>")[2:]
    return [
        [cell.partition("<")[0] for cell in row.replace("<td>", '">').split('">')[1:]]
        for row in rows
    ]


def test_a_run_that_is_killed_in_epoch_3_leaves_a_page_of_two(tmp_path):
    script = """
        import os, pathlib, signal, sys
        import test_report_writer as test
        class Killed(test.TrainerCallback):
            def on_epoch_begin(self, epoch):
                if epoch == 3:
                    os.kill(os.getpid(), signal.SIGKILL)
        folder = pathlib.Path(sys.argv[1])
        test.train(folder, test.ReportWriter(folder), Killed())
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script), str(tmp_path)],
        cwd=Path(__file__).parent,
        env={**os.environ, "PYTHONPATH": f"{TESTS.parent}:{TESTS}"},
        check=False,
    )
    assert done.returncode == -9
    page = page_of(tmp_path)
    assert "2 of 3 epochs; written" in page
    assert [row[0] for row in epochs_in(page)] == ["1", "2"]
    assert {path.name for path in tmp_path.iterdir()} == {"checkpoints", "report.html"}


def test_a_resumed_run_has_the_epochs_before_on_its_page(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path, ReportWriter(tmp_path), StopsIn(3))
    result = train(tmp_path, ReportWriter(tmp_path), resume="auto")
    assert "3 epochs; written" in page_of(tmp_path)
    expected = [
        [str(n), f"{row['train']['loss']:.4g}", f"{row['eval']['loss']:.4g}"]
        for n, row in enumerate(result.history, 1)
    ]
    assert epochs_in(page_of(tmp_path)) == expected


def test_epochs_before_the_callback_was_there_are_empty_rather_than_wrong(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path, TrainerCallback(), StopsIn(3))
    train(tmp_path, ReportWriter(tmp_path), resume="auto")
    rows = epochs_in(page_of(tmp_path))
    assert [row[0] for row in rows] == ["1", "2", "3"]
    assert [row[1] == "-" for row in rows] == [True, True, False]


def test_a_second_run_with_the_same_callback_has_its_own_page(tmp_path):
    writer = ReportWriter(tmp_path)
    train(tmp_path, writer)
    train(tmp_path / "second", writer)
    assert "3 epochs; written" in page_of(tmp_path)


def test_a_page_that_fails_is_told_once_with_its_cause_and_training_goes_on(tmp_path, caplog):
    (tmp_path / "file").touch()
    with caplog.at_level(logging.WARNING, "medjax"):
        result = train(tmp_path, ReportWriter(tmp_path / "file"))
    assert len(result.history) == 3
    told = [record.getMessage() for record in caplog.records if "not written" in record.message]
    assert len(told) == 1
    assert "report.html is not written, training goes on (FileExistsError" in told[0]


def test_a_metric_that_is_missing_does_not_end_the_training(tmp_path, caplog):
    result = train(tmp_path, ReportWriter(tmp_path, metrics=["recall"]))
    assert len(result.history) == 3
    assert "the history has no metric 'recall'" in caplog.text
    assert not (tmp_path / "report.html").exists()


@pytest.mark.parametrize("options", [None, Options(max_grad_norm=2.0)])
def test_options_are_listed_only_if_they_are_known(tmp_path, options):
    train(tmp_path, ReportWriter(tmp_path, options, settings={"model": "mlp <1>"}))
    page = page_of(tmp_path)
    assert ("Options.max_grad_norm</th><td><strong>2" in page) == (options is not None)
    assert ("Options." in page) == (options is not None)
    assert "mlp &lt;1&gt;" in page
    assert "TrainerConfig.batch_size" in page


def test_curves_are_those_of_the_loss_and_the_checkpoint_metric(tmp_path):
    writer = ReportWriter(tmp_path)
    writer.on_train_begin(config(tmp_path, checkpoint_metric="f1"))
    writer.on_epoch_end({"train": {"loss": 0.5}}, 1, 1.0)
    assert page_of(tmp_path).count("<svg") == 1
    writer.on_epoch_end({"train": {"loss": 0.5}, "eval": {"f1": 0.5, "recall": 0.5}}, 2, 1.0)
    assert page_of(tmp_path).count("<svg") == 2


def test_what_is_kept_is_numbers_only(tmp_path):
    class Score(float):
        """A number that holds on to something."""

    writer = ReportWriter(tmp_path)
    writer.on_train_begin(config(tmp_path))
    writer.on_epoch_end({"train": {"loss": Score(0.5)}, "eval": {"table": "a b"}}, 1, 1.0)
    (row,) = writer.state_dict()["history"]
    assert row == {"train": {"loss": 0.5}, "eval": {"table": "a b"}}
    assert type(row["train"]["loss"]) is float


def test_only_process_0_writes():
    assert ReportWriter.of_process_0


def test_it_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ImportError, match=r"pip install 'medjax\[plots\]'"):
        ReportWriter(tmp_path)
