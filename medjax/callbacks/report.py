"""write_report: a run in one file that any browser opens."""

from __future__ import annotations

import dataclasses
import datetime
import html
import itertools
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax

from medjax import distributed
from medjax.callbacks.highlight import ErrorExample, has_error, highlighted
from medjax.callbacks.plots import curve_as_svg
from medjax.callbacks.report_style import STYLE
from medjax.callbacks.table import number_text
from medjax.callbacks.writers import replace_text
from medjax.config import Options, TrainerConfig

__all__ = ["History", "Rows", "write_page", "write_report"]

Rows = Sequence[Sequence[object]]
"""A table: the heading, then the lines. The first cell of each names it."""

_INTERVAL = re.compile(r"\[[^\]]*\]$")
_UNBROKEN = r"<span>\g<0></span>"

History = Sequence[Mapping[str, Mapping[str, Any]]]

_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<title>{title}</title>
<style>{style}</style>
</head>
<body>
<h1>{title}</h1>
{sections}
</body>
</html>
"""


def write_report(
    path: str | Path,
    history: History,
    config: TrainerConfig,
    options: Options | None = None,
    *,
    title: str = "Training report",
    metrics: Sequence[str] = ("loss",),
    tables: Mapping[str, Rows] | None = None,
    confusion: Rows | None = None,
    errors: Iterable[ErrorExample] = (),
    max_errors: int = 20,
    settings: Mapping[str, object] | None = None,
) -> None:
    """Write what a run did as one HTML file, which needs neither a network nor scripts.

    The texts of `errors` are data of your patients: the file contains them, and is as confidential
    as they are. With ``max_errors=0`` it contains numbers, labels and settings only.

    Parameters
    ----------
    path : str or Path
        The file, usually ``report.html`` in the folder of the run; its folder is made if missing.
        With several processes, process 0 writes it.
    history : sequence of dict
        ``TrainResult.history``.
    config, options : TrainerConfig, Options
        Settings of the run; those that are not the default are set in bold.
    title : str
        Heading of the page.
    metrics : sequence of str
        Metrics whose curves are drawn.
    tables : mapping of str to rows, optional
        Tables by heading, such as `medjax.metrics.score_rows`, which has intervals where the scores
        have them.
    confusion : rows, optional
        Counts by true and predicted label, such as `medjax.metrics.confusion_rows`; shaded.
    errors : iterable of ErrorExample
        Texts with true and predicted entities; those without an error are passed over.
    max_errors : int, default=20
        Number of texts with errors that are shown, the first ones; 0 leaves all texts out.
    settings : mapping of str to object, optional
        More settings: the model, the data.

    Raises
    ------
    ImportError
        If matplotlib, which draws the curves, is not installed (extra ``plots``).
    ValueError
        If the history lacks a metric, rows of a table differ in length, or an entity does not lie
        within its text.

    Examples
    --------
    >>> history = [{"train": {"loss": 0.5}}, {"train": {"loss": 0.4}}]
    >>> write_report("runs/ner/report.html", history, TrainerConfig("runs/ner"))  # doctest: +SKIP
    """
    if jax.process_index():
        return
    results = [_section(name, _table(rows)) for name, rows in (tables or {}).items()]
    if confusion is not None:
        results.append(_section("Confusion", _table(confusion, is_shaded=True)))
    results.append(_errors(errors, max_errors))
    write_page(
        path,
        history,
        config,
        options or Options(),
        title=title,
        metrics=metrics,
        settings=settings,
        results=results,
    )


def write_page(
    path: str | Path,
    history: History,
    config: TrainerConfig,
    options: Options | None,
    *,
    title: str,
    metrics: Sequence[str],
    settings: Mapping[str, object] | None,
    results: Sequence[str] = (),
) -> None:
    """Write a page with what is known of every run, and with sections of results in its middle.

    Parameters
    ----------
    path, history, config, title, metrics, settings
        As for `write_report`.
    options : Options or None
        Options of the run; None if they are not known, and left out.
    results : sequence of str
        Sections as HTML.
    """
    sections = [
        _summary(history, config),
        _curves(history, metrics),
        *results,
        _section("Epochs", _table(_epochs(history)), is_open=False),
        _section("Settings", _settings(config, options, settings or {}), is_open=False),
        _section("Versions", _table([("", "version"), *_versions().items()]), is_open=False),
    ]
    page = _PAGE.format(title=html.escape(title), style=STYLE, sections="\n".join(sections))
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    replace_text(path, page)


def _section(name: str, content: str, *, is_open: bool = True) -> str:
    heading = html.escape(name)
    if is_open:
        return f"<section><h2>{heading}</h2>\n{content}</section>"
    return f"<details><summary>{heading}</summary>\n{content}</details>"


def _summary(history: History, config: TrainerConfig) -> str:
    """Return how long the run was and which epoch was the best."""
    written = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC")
    nb_epochs = f"{len(history)} epoch{'' if len(history) == 1 else 's'}"
    if len(history) < config.nb_training_epochs:
        nb_epochs = f"{len(history)} of {config.nb_training_epochs} epochs"
    said = [f"{nb_epochs}; written {written}."]
    name = config.checkpoint_metric
    values = [
        (float(scores["eval"][name]), epoch)
        for epoch, scores in enumerate(history, 1)
        if name in scores.get("eval", {}) and scores["eval"][name] == scores["eval"][name]
    ]
    if values:
        sign = 1 if config.minimize_checkpoint_metric else -1
        value, epoch = min(values, key=lambda both: (sign * both[0], both[1]))
        said.append(f"Best evaluation: {name} {value:.4g} in epoch {epoch}.")
    return f"<p>{html.escape(' '.join(said))}</p>"


def _curves(history: History, metrics: Sequence[str]) -> str:
    if not history:
        return ""
    drawn = "\n".join(f"<figure>{curve_as_svg(history, name)}</figure>" for name in metrics)
    return _section("Learning curves", f'<div class="curves">{drawn}</div>')


def _table(rows: Rows, *, is_shaded: bool = False) -> str:
    """Return a table as HTML; with shades, a number is as dark as its share of its row."""
    widths = {len(row) for row in rows}
    if len(widths) != 1:
        msg = f"a table of the report has rows of {sorted(widths)} cells; expected as many in each"
        raise ValueError(msg)
    heading, *lines = rows
    cells = "".join(f'<th scope="col">{_text(cell)}</th>' for cell in heading)
    parts = [f"<thead><tr>{cells}</tr></thead>"]
    for name, *values in lines:
        total = sum(value for value in map(_count, values) if value is not None) or 1
        cells = f'<th scope="row">{_text(name)}</th>'
        for value in values:
            count = _count(value) if is_shaded else None
            style = "" if not count else f' style="--share:{100 * count / total:.0f}%"'
            cells += f"<td{style}>{_INTERVAL.sub(_UNBROKEN, _text(value))}</td>"
        parts.append(f"<tr>{cells}</tr>")
    return f'<div class="table"><table>{"".join(parts)}</table></div>'


def _count(cell: object) -> int | None:
    text = str(cell)
    return int(text) if text.isdecimal() else None


def _text(cell: object) -> str:
    return html.escape(number_text(cell) if isinstance(cell, float) else str(cell))


def _errors(errors: Iterable[ErrorExample], max_errors: int) -> str:
    """Return the first texts with errors."""
    if max_errors == 0:
        return ""
    wrong = [example for example in errors if has_error(example)]
    if not wrong:
        return ""
    key = "".join(
        f'<li><mark class="{kind}">{kind}</mark> {meaning}</li>'
        for kind, meaning in (
            ("right", "annotated and predicted"),
            ("missed", "annotated only"),
            ("spurious", "predicted only"),
        )
    )
    shown = []
    for example in itertools.islice(wrong, max_errors):
        caption = f"<p>{html.escape(example.caption)}</p>" if example.caption else ""
        shown.append(f"<li>{caption}<blockquote>{highlighted(example)}</blockquote></li>")
    if any(example.true or example.predicted for example in wrong):
        key = f'<ul class="key">{key}</ul>'
    else:
        key = ""
    said = f"<p>{len(shown)} of {len(wrong)} texts with errors.</p>"
    return _section("Errors", f'{said}{key}<ol class="errors">{"".join(shown)}</ol>')


def _epochs(history: History) -> Rows:
    columns = list(
        dict.fromkeys(
            (phase, name) for row in history for phase, scores in row.items() for name in scores
        )
    )
    rows: list[list[object]] = [["epoch", *(f"{phase} {name}" for phase, name in columns)]]
    for epoch, scores in enumerate(history, 1):
        cells = [scores.get(phase, {}).get(name, "-") for phase, name in columns]
        rows.append([epoch, *(cell if isinstance(cell, str) else float(cell) for cell in cells)])
    return rows


def _settings(config: TrainerConfig, options: Options | None, more: Mapping[str, object]) -> str:
    """Return the settings; a field that is not the default is set in bold."""
    records: list[TrainerConfig | Options] = [config] if options is None else [config, options]
    lines = [
        f"<tr><th>{_text(name)}</th><td>{html.escape(str(value))}</td></tr>"
        for name, value in more.items()
    ]
    for record in records:
        for field in dataclasses.fields(record):
            value = getattr(record, field.name)
            name, text = f"{type(record).__name__}.{field.name}", html.escape(str(value))
            if value != _default(field):
                text = f"<strong>{text}</strong>"
            lines.append(f"<tr><th>{name}</th><td>{text}</td></tr>")
    return f'<div class="table"><table class="texts">{"".join(lines)}</table></div>'


def _default(field: dataclasses.Field[Any]) -> Any:
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return field.default


def _versions() -> dict[str, str]:
    devices = jax.devices()
    kinds = sorted({device.device_kind for device in devices})
    return distributed.versions() | {"devices": f"{len(devices)} x {', '.join(kinds)}"}
