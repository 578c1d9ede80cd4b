"""Plots of learning curves, with matplotlib (extra ``plots``)."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

__all__ = ["plot_history"]


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
    figure = _figure_class()(figsize=(5 * len(metrics), 3.5), layout="constrained")
    for panel, metric in zip(
        figure.subplots(1, len(metrics), squeeze=False)[0], metrics, strict=True
    ):
        _draw(panel, history, metric)
    if path is not None:
        figure.savefig(path, dpi=150)
    return figure


def _figure_class() -> Any:
    """Return a figure of its own instead of one of pyplot, which has global state and a display."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError("plot_history needs matplotlib: pip install 'medjax[plots]'") from error

    class ShownFigure(Figure):
        """Notebooks show figures of pyplot by themselves, others only if they can be asked."""

        def _repr_png_(self) -> bytes:
            content = io.BytesIO()
            self.savefig(content, format="png", dpi=100)
            return content.getvalue()

    return ShownFigure


def _draw(panel: Any, history: Sequence[dict[str, dict[str, float]]], metric: str) -> None:
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
    for phase, points in lines.items():
        if points:
            panel.plot(*zip(*points, strict=True), marker="o", label=phase)
    panel.set(xlabel="epoch", ylabel=metric)
    panel.xaxis.get_major_locator().set_params(integer=True)
    panel.grid(alpha=0.3)
    panel.legend()
