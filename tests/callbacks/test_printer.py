"""What a person sees of a run on a terminal, in a notebook and in a log: bars, waits, the table."""

import io
import os
import pty
import sys
import termios
import types

import numpy as np
import pytest
from tiny import config, mlp, points

import medjax
from medjax import DefaultPrinterCallback, TrainerCallback
from medjax.callbacks import bars
from medjax.callbacks.printer import tell_if_silent
from medjax.callbacks.table import chosen_columns, heading, row
from medjax.runtime import CompiledStep, telling, waiting_for

HEADING = ["epoch", "seconds", "train", "loss", "eval", "loss"]


def metrics(value, **others):
    return {"train": {"loss": 1.0}, "eval": {"loss": value, **others}}


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def standard_error(monkeypatch):
    """Return a function that makes a stream of 80 columns standard error."""

    def replace(stream):
        # pytest itself replaces sys.stderr between a fixture and its test
        fake = types.SimpleNamespace(stderr=stream, modules=sys.modules)
        for name in ("bars", "printer"):
            monkeypatch.setattr(sys.modules[f"medjax.callbacks.{name}"], "sys", fake)
        monkeypatch.setenv("COLUMNS", "80")
        monkeypatch.setenv("TERM", "xterm")
        return stream

    return replace


@pytest.fixture
def log(standard_error):
    """Return standard error, which is a file."""
    return standard_error(io.StringIO())


@pytest.fixture
def terminal(standard_error):
    """Return standard error, which is a terminal."""
    return standard_error(Terminal())


@pytest.fixture
def notebook(monkeypatch):
    """Pretend to be in a notebook, and return the texts that its one output has had."""
    shown = []

    class Handle:
        def update(self, content, raw):
            assert raw
            shown.append(content["text/plain"])

    def display(content, raw, display_id):
        assert raw
        assert display_id
        assert not shown, "there is one output for a run"
        shown.append(content["text/plain"])
        return Handle()

    shell = types.SimpleNamespace(kernel=object())
    ipython = types.SimpleNamespace(get_ipython=lambda: shell)
    monkeypatch.setitem(sys.modules, "IPython", ipython)
    monkeypatch.setitem(sys.modules, "IPython.display", types.SimpleNamespace(display=display))
    return shown


def steps(callback, phase, count, stop=None):
    for step in range(count if stop is None else stop):
        callback.on_step_begin(step, nb_batches=count, phase=phase)
        callback.on_step_end(step, nb_batches=count, phase=phase, loss=0.25)


def lines_of(stream):
    """Return the lines that stay on a terminal, without their times."""
    kept = [line.split("\r")[-1] for line in stream.getvalue().split("\n")]
    return [line.partition(" ")[2] for line in kept if line.strip()]


def a_run(printer, folder, epochs=(1, 2)):
    printer.on_train_begin(config=config(folder))
    for epoch in epochs:
        printer.on_epoch_begin(epoch=epoch)
        steps(printer, "train", 3)
        steps(printer, "eval", 2)
        printer.on_epoch_end(metrics(0.5, f1=0.75), epoch, 1.5)
        printer.on_save(checkpoint_dir="runs/checkpoint")
    printer.on_train_end()


def test_a_terminal_keeps_the_table_and_no_bar(terminal, tmp_path):
    a_run(DefaultPrinterCallback(), tmp_path)
    text = terminal.getvalue()
    assert "train: 100%" in text or "train:   0%" in text
    assert "| 0/3 " in text
    assert "| 0/2 " in text
    rows = lines_of(terminal)
    assert rows[1].split() == [*HEADING, "eval", "f1"]
    assert rows[2].split() == ["1", "1.5", "1", "0.5", "0.75"]
    assert rows[3] == "Saving checkpoint in runs/checkpoint"
    assert rows[4].split()[:2] == ["2", "1.5"]  # the heading is printed once
    assert rows[-1] == "Training is completed"
    assert len(rows) == 7


@pytest.mark.parametrize("size", [(0, 0), (0, 60), (24, 0), (24, 60)])
def test_a_terminal_without_a_size_has_a_bar(standard_error, monkeypatch, size):
    """The size is in rows and columns; a new terminal has none, as with ``stty rows 0 cols 0``."""
    screen, keyboard = pty.openpty()
    os.set_blocking(screen, False)  # nothing to read is an error
    termios.tcsetwinsize(keyboard, size)
    with open(keyboard, "w") as stream:
        standard_error(stream)
        for name in ("COLUMNS", "LINES"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setattr(sys, "__stdout__", None)  # the terminal of who runs the tests
        printer = DefaultPrinterCallback()
        printer.on_step_begin(0, nb_batches=2, phase="train")
        bar = os.read(screen, 4096).decode().split("\r")[-1]
        printer.on_exception(RuntimeError())
    os.close(screen)
    assert bar.startswith("train:   0%")
    assert bar.endswith("batch/s]")
    assert len(bar) == (79 if 0 in size else 59)


def test_the_bar_shows_the_loss_and_what_is_waited_for(terminal):
    printer = DefaultPrinterCallback()
    printer.on_wait("preparing model and data")
    assert terminal.getvalue().endswith("\rpreparing model and data")
    printer.on_wait(None)
    printer.on_step_begin(0, nb_batches=2, phase="train")
    printer.on_wait("compiling 16 x 24")
    assert "train, compiling 16 x 24:   0%" in terminal.getvalue().split("\r")[-1]
    printer.on_wait(None)
    assert "train:   0%" in terminal.getvalue().split("\r")[-1]
    printer.on_step_end(0, nb_batches=2, phase="train", loss=0.25)
    printer.screen._bar.refresh()
    assert "loss 0.25" in terminal.getvalue()


def test_the_bar_of_an_interrupted_run_is_closed(terminal, tmp_path):
    printer = DefaultPrinterCallback()
    printer.on_train_begin(config=config(tmp_path))
    steps(printer, "train", 5, stop=2)
    printer.on_exception(RuntimeError())
    assert printer._screen is None
    steps(printer, "train", 5, stop=2)  # a second run, interrupted without a word
    printer.on_train_begin(config=config(tmp_path))
    assert printer.screen.phase is None
    steps(printer, "train", 5, stop=2)  # the evaluation follows immediately
    printer.on_step_begin(0, nb_batches=1, phase="eval")
    assert printer.screen.phase == "eval"
    printer.on_step_end(0, nb_batches=1, phase="eval")
    assert printer.screen.phase is None
    assert not bars.tqdm._instances


def test_a_message_does_not_tear_the_bar(terminal):
    printer = DefaultPrinterCallback()
    printer.on_step_begin(0, nb_batches=2, phase="train")
    printer.on_save(checkpoint_dir="here")
    printer.on_exception(RuntimeError())
    assert lines_of(terminal) == ["Saving checkpoint in here"]


def test_a_log_gets_lines_and_no_carriage_returns(log, tmp_path):
    printer = DefaultPrinterCallback(interval=0.0)
    printer.on_wait("preparing model and data")
    printer.on_wait(None)
    a_run(printer, tmp_path, epochs=(1,))
    text = log.getvalue()
    assert "\r" not in text
    assert "\x1b" not in text
    rows = lines_of(log)
    assert rows[0] == "preparing model and data"
    assert any(row.startswith("train 1/3 batches, 00:00 elapsed") for row in rows)
    assert any(row.endswith("batch/s, loss 0.25") for row in rows)


def test_a_log_gets_one_line_in_an_interval(log, tmp_path):
    printer = DefaultPrinterCallback(interval=3600.0)
    printer.on_train_begin(config=config(tmp_path))
    for _ in range(2):
        printer.on_step_begin(0, nb_batches=2, phase="train")
        for size in (16, 24):
            printer.on_wait(f"compiling 4 x {size}")
            printer.on_wait(None)
        printer.on_step_end(0, nb_batches=2, phase="train", loss=0.5)
        printer.on_step_begin(1, nb_batches=2, phase="train")
        printer.on_step_end(1, nb_batches=2, phase="train", loss=0.5)
    assert lines_of(log)[1:] == ["train 0/2, compiling 4 x 16"] * 2


def test_a_dumb_terminal_is_a_log(terminal, monkeypatch):
    monkeypatch.setenv("TERM", "dumb")
    steps(DefaultPrinterCallback(), "train", 3)
    assert terminal.getvalue() == ""


def test_a_notebook_has_one_output_with_the_bar(notebook, capsys, tmp_path):
    printer = DefaultPrinterCallback()
    printer.on_wait("preparing model and data")
    printer.on_wait(None)
    a_run(printer, tmp_path, epochs=(1, 2, 3))
    assert notebook[0] == "preparing model and data"
    assert notebook[1].startswith("train:   0%")
    assert notebook[-1].startswith("3 epochs in ")
    assert "\r" not in capsys.readouterr().err


def test_an_interrupted_notebook_keeps_how_far_it_came(notebook):
    printer = DefaultPrinterCallback()
    printer.on_step_begin(0, nb_batches=2, phase="train")
    printer.on_exception(KeyboardInterrupt())
    assert "0/2" in notebook[-1]


def test_nothing_is_coloured(terminal, monkeypatch, tmp_path):
    monkeypatch.setenv("NO_COLOR", "1")
    a_run(DefaultPrinterCallback(), tmp_path)
    assert "\x1b[3" not in terminal.getvalue()


def test_every_line_is_printed_once_to_the_current_standard_error(capsys, tmp_path):
    printers = [DefaultPrinterCallback() for _ in range(3)]
    printers[0].on_train_begin(config=config(tmp_path))
    assert capsys.readouterr().err.count("Running training: 2 epochs, batch size 4") == 1
    assert not printers[0].logger.propagate


MANY = {
    "train": {"loss": 1.0},
    "eval": {"loss": 0.5, **{f"label-{i}_f1-score": 0.1 for i in range(50)}, "micro_f1-score": 0.9},
}


@pytest.mark.parametrize("width", [40, 60, 80, 120])
def test_the_table_fits_and_begins_with_the_losses_and_the_checkpoint_metric(width):
    columns, nb_others = chosen_columns(MANY, metric="micro_f1-score", max_columns=6, width=width)
    lines = heading(columns), row(MANY, columns, 1, 12.5)
    assert {len(line) for line in lines} == {len(lines[0])}
    assert len(lines[0]) <= width
    first = [("train", "loss"), ("eval", "loss"), ("eval", "micro_f1-score")]
    assert columns[:3] == first[: len(columns)]
    assert len(columns) + nb_others == 53
    assert len(columns) <= 7


def test_a_column_is_never_narrower_than_its_numbers():
    scores = {"eval": {"f": -1.2345e-05}}
    columns, _ = chosen_columns(scores, metric="f", max_columns=1, width=1)
    assert len(heading(columns)) == len(row(scores, columns, 1, 1.0))


def test_the_printer_says_where_the_other_metrics_are(log, monkeypatch, tmp_path):
    monkeypatch.setenv("COLUMNS", "60")
    printer = DefaultPrinterCallback()
    printer.on_train_begin(config=config(tmp_path, checkpoint_metric="micro_f1-score"))
    for epoch in (1, 2):
        printer.on_epoch_end(MANY, epoch, 1.5)
    rows = lines_of(log)
    assert rows[1] == "51 more metrics are in the history, and in metrics.csv if log_dir is set"
    assert rows[2].split() == HEADING
    assert len(rows) == 5


def test_a_callback_of_ones_own_says_once_that_it_silences_the_printer(capsys):
    class Mine(TrainerCallback):
        pass

    class Noisy(DefaultPrinterCallback):
        pass

    for _ in range(2):
        tell_if_silent([Mine()])
    assert capsys.readouterr().err.count("callback=[DefaultPrinterCallback(), Mine(...)]") == 1
    tell_if_silent([])
    tell_if_silent([Mine(), Noisy()])
    assert capsys.readouterr().err == ""


def test_what_is_waited_for_is_told_in_order_and_only_within_the_block():
    told = []
    with telling(told.append), waiting_for("outer"), waiting_for("inner"):
        pass
    with waiting_for("nobody listens"):
        pass
    assert told == ["outer", "inner", "outer", None]


def test_a_step_tells_what_it_is_compiled_for_and_nothing_later():
    step = CompiledStep(lambda state, batch: state + batch["x"].sum(), "training")
    batch, told = {"x": np.ones((16, 24)), "mask": np.ones(16)}, []
    with telling(told.append):
        step(1.0, batch)
        step(1.0, batch)
    assert told == ["compiling 16 x 24", None]
    told.clear()
    ahead = {"x": np.ones((16, 32)), "mask": np.ones(16)}
    with telling(told.append):
        step.compile_ahead(1.0, ahead)
        step(1.0, ahead)
    assert told == ["compiling 16 x 32", None] * 2


class Waits(TrainerCallback):
    def __init__(self):
        self.reasons = []

    def on_wait(self, reason):
        self.reasons.append(reason)


def test_a_run_tells_its_callbacks_what_it_waits_for(tmp_path):
    waits = Waits()
    component = mlp()
    medjax.train(component, config(tmp_path), points(8), points(4), callback=waits)
    assert waits.reasons[:2] == ["preparing model and data", None]
    assert waits.reasons[2:] == ["compiling 4 x 4", None] * 2  # training and evaluation
