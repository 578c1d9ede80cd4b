"""Progress bars: on a terminal, in a notebook, and as lines of a log."""

from __future__ import annotations

import io
import os
import shutil
import sys
import time
from collections.abc import Callable
from typing import Any

from tqdm.std import tqdm

__all__ = ["Screen", "fitting", "screen_of"]

_LINE = (
    "{desc} {n_fmt}/{total_fmt} batches, {elapsed} elapsed, {remaining} left, {rate_fmt}{postfix}"
)


class Screen:
    """Shows progress on a terminal: one line, which is written again and again.

    Parameters
    ----------
    say : callable
        Prints a line of text.
    interval : float
        Seconds between two lines, where lines cannot be written again.
    """

    def __init__(self, say: Callable[[str], None], interval: float) -> None:
        self._say = say
        self._interval = interval
        self._phase = ""
        self._bar: Any = None
        self._is_text = False

    @property
    def phase(self) -> str | None:
        """The phase whose bar is shown, if one is."""
        return None if self._bar is None or self._is_text else self._phase

    def open(self, phase: str, *, total: int, initial: int) -> None:
        """Show a bar for a phase, instead of another one.

        Parameters
        ----------
        phase : str
            Its name.
        total, initial : int
            Number of its batches, and of those that are done.
        """
        self.close()
        self._phase = phase
        self._bar = self._make(total=total, initial=initial, desc=phase, unit="batch")

    def advance(self, loss: float | None) -> None:
        """Count a batch."""
        if loss is not None:
            self._bar.set_postfix_str(f"loss {loss:.4g}", refresh=False)
        self._bar.update()

    def wait(self, reason: str | None) -> None:
        """Show what is waited for, or with None that the wait is over."""
        if self._bar is None and reason is not None:
            self._is_text = True
            self._bar = self._make(desc=reason, bar_format="{desc}")
        elif self._is_text and reason is None:
            self.close()
        elif self._bar is not None:
            text = reason if self._is_text else self._phase
            is_told = reason is not None and not self._is_text
            self._bar.set_description_str(f"{text}, {reason}" if is_told else text)

    def close(self) -> None:
        """Remove the bar, if there is one."""
        if self._bar is not None:
            self._bar.close()
            self._bar, self._is_text = None, False

    def end(self, summary: str) -> None:
        """Remove everything but a summary, where it takes the place of the bars."""
        del summary
        self.close()

    def _make(self, **options: Any) -> Any:
        return tqdm(leave=False, file=sys.stderr, **fitting(sys.stderr), **options)


class _NotebookScreen(Screen):
    """Shows progress in one output of a notebook's cell, which needs no widgets.

    An executed notebook keeps the last text: the summary, or how far an interrupted run has come.
    """

    def __init__(self, say: Callable[[str], None], interval: float) -> None:
        super().__init__(say, interval)
        self._output: Any = None

    def end(self, summary: str) -> None:
        super().end(summary)
        if self._output is not None:
            self._show(summary)
        self._output = None

    def _show(self, text: str) -> None:
        from IPython.display import display

        content = {"text/plain": text}
        if self._output is None:
            self._output = display(content, raw=True, display_id=True)
        else:
            self._output.update(content, raw=True)

    def _make(self, **options: Any) -> Any:
        return _Shown(self._show, leave=False, ncols=80, mininterval=0.5, **options)


class _LogScreen(Screen):
    """Prints a line now and then; for files, to which a bar would be one long line."""

    def __init__(self, say: Callable[[str], None], interval: float) -> None:
        super().__init__(say, interval)
        self._next_wait = 0.0

    def open(self, phase: str, *, total: int, initial: int) -> None:
        super().open(phase, total=total, initial=initial)
        self._next_wait = 0.0

    def wait(self, reason: str | None) -> None:
        if reason is None or time.monotonic() < self._next_wait:
            return
        self._next_wait = time.monotonic() + self._interval
        bar = self._bar
        self._say(reason if bar is None else f"{self._phase} {bar.n}/{bar.total}, {reason}")

    def _make(self, **options: Any) -> Any:
        return _Shown(
            self._print,
            leave=False,
            delay=self._interval,
            mininterval=self._interval,
            maxinterval=self._interval,
            bar_format=_LINE,
            **options,
        )

    def _print(self, line: str) -> None:
        self._next_wait = time.monotonic() + self._interval
        self._say(line)


class _Shown(tqdm):  # type: ignore[type-arg]
    """A bar of tqdm that a function shows."""

    monitor_interval = 0  # no thread of tqdm's shows it as well

    def __init__(self, show: Callable[[str], None], **options: Any) -> None:
        self._show = show
        super().__init__(file=io.StringIO(), miniters=1, **options)

    def display(self, msg: str | None = None, pos: int | None = None) -> None:
        del pos
        if msg is None:  # it is "" when the bar is removed
            self._show(str(self))


def fitting(stream: Any) -> dict[str, Any]:
    """Return what tqdm must be told of the size of a terminal.

    tqdm follows the size that the terminal has. Where that has none, as some of CI do, it is as for
    `shutil.get_terminal_size`: that of ``COLUMNS`` and ``LINES``, or 80 x 24.

    Parameters
    ----------
    stream : file
        Where the bar is drawn.

    Returns
    -------
    dict
        Keyword arguments for a bar.
    """
    try:
        has_size = all(os.get_terminal_size(stream.fileno()))
    except (AttributeError, OSError, ValueError):  # no terminal, which tqdm knows itself
        has_size = True
    if has_size:
        return {"dynamic_ncols": True}
    size = shutil.get_terminal_size()
    return {"ncols": size.columns - 1, "nrows": size.lines - 1}  # as tqdm counts them


def screen_of(say: Callable[[str], None], interval: float) -> Screen:
    """Return the screen that fits where standard error goes to; for parameters see `Screen`."""
    if _is_notebook():
        return _NotebookScreen(say, interval)
    if sys.stderr.isatty() and os.environ.get("TERM") != "dumb":
        return Screen(say, interval)
    return _LogScreen(say, interval)


def _is_notebook() -> bool:
    ipython: Any = sys.modules.get("IPython")
    shell = None if ipython is None else ipython.get_ipython()
    return shell is not None and getattr(shell, "kernel", None) is not None
