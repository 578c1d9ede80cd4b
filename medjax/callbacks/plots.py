"""Plots of learning curves, with matplotlib (extra ``plots``)."""

from __future__ import annotations

import html
import io
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

__all__ = ["curve_as_svg", "plot_history"]

_INK = "#010203"  # stands for the colour of the page's text


def plot_history(
    history: Sequence[dict[str, dict[str, float]]],
    path: str | Path | None = None,
    *,
    metrics: Sequence[str] = ("loss",),
) -> Any:
    """Plot metrics against epochs, with a panel for each metric and a line for each phase.

    Parameters
    ----------
    history : sequence of dict
        ``TrainResult.history``.
    path : str or Path, optional
        Where to save the figure; the suffix determines the format.
    metrics : sequence of str
        Metrics to plot; a phase without a metric has no line in its panel.

    Returns
    -------
    matplotlib.figure.Figure
        The figure; a notebook shows it.

    Raises
    ------
    ImportError
        If matplotlib is not installed.
    ValueError
        If a metric is missing from all phases.

    Examples
    --------
    >>> history = [{"train": {"loss": 0.5}}, {"train": {"loss": 0.4}}]
    >>> figure = plot_history(history)  # doctest: +SKIP
    """
    figure = _new_figure(width=5 * len(metrics), height=3.5)
    for panel, metric in zip(
        figure.subplots(1, len(metrics), squeeze=False)[0], metrics, strict=True
    ):
        _draw(panel, history, metric)
    if path is not None:
        figure.savefig(path, dpi=150)
    return figure


def curve_as_svg(history: Sequence[Mapping[str, Mapping[str, float]]], metric: str) -> str:
    """Return the curve of a metric as an SVG element for a page, in the colour of its text.

    Parameters
    ----------
    history, metric
        As for `plot_history`.

    Raises
    ------
    ImportError
        If matplotlib is not installed.
    ValueError
        If the metric is missing.
    """
    figure = _new_figure(width=4.6, height=3.0)
    import matplotlib

    names = ("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color")
    inks = dict.fromkeys((*names, "grid.color"), _INK)
    # The salt makes the identifiers within the pictures of a page differ.
    settings: Any = {
        "svg.fonttype": "none",
        "svg.hashsalt": metric,
        "legend.frameon": False,
        **inks,
    }
    text = io.StringIO()
    with matplotlib.rc_context(settings):
        _draw(figure.subplots(), history, metric)
        nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        figure.savefig(text, format="svg", transparent=True, metadata=nothing)
    svg = text.getvalue()
    svg = svg[svg.index("<svg") :].replace(_INK, "currentColor")
    svg = re.sub(r' id="[A-Za-z0-9.]+_\d+"', "", svg)  # every picture has the same
    svg = re.sub(r'^<svg [^>]*?(viewBox="[^"]*")', r"<svg \1", svg).replace("\n", " ")
    label = html.escape(f"{metric} by epoch", quote=True)
    return svg.replace("<svg ", f'<svg role="img" aria-label="{label}" ', 1)


def _new_figure(*, width: float, height: float) -> Any:
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError("curves need matplotlib: pip install 'medjax[plots]'") from error

    class ShownFigure(Figure):
        """Notebooks show figures of pyplot by themselves, others only if they can be asked."""

        def _repr_png_(self) -> bytes:
            content = io.BytesIO()
            self.savefig(content, format="png", dpi=100)
            return content.getvalue()

    # A figure of its own instead of one of pyplot: no global state and no display.
    return ShownFigure(figsize=(width, height), layout="constrained")


def _draw(panel: Any, history: Sequence[Mapping[str, Mapping[str, float]]], metric: str) -> None:
    lines = {
        phase: [
            (epoch, row[phase][metric])
            for epoch, row in enumerate(history, 1)
            if metric in row.get(phase, {})
        ]
        for phase in ("train", "eval")
    }
    if not any(lines.values()):
        names = sorted({name for row in history for scores in row.values() for name in scores})
        raise ValueError(f"the history has no metric {metric!r}; choose among {names}")
    for color, (phase, points) in zip(("C0", "C1"), lines.items(), strict=True):
        if points:
            panel.plot(*zip(*points, strict=True), marker="o", label=phase, color=color)
    panel.set(xlabel="epoch", ylabel=metric)
    panel.xaxis.get_major_locator().set_params(integer=True)
    if len(history) == 1:  # else its neighbours are fractions of an epoch
        panel.set_xticks([1])
    panel.grid(alpha=0.3)
    panel.legend()
