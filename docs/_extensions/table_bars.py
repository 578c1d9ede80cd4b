"""A directive that draws a table of the page as bars, so that numbers stand in one place.

Every column of numbers becomes a group of bars, every row a bar of each group. The drawing is part
of the page, an SVG in the colours of its text, so that it fits a light and a dark page::

    :::{table-bars}
    :table: 1
    :columns: run, run 2
    :legend: float32, bfloat16
    :unit: seconds
    :::
"""

from __future__ import annotations

import io
import re
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.errors import ExtensionError
from sphinx.util.docutils import SphinxDirective

_NUMBER = re.compile(r"\d+(\.\d+)?")


class TableBars(SphinxDirective):
    """Draw columns of a table of the same page."""

    option_spec = {  # noqa: RUF012  (docutils reads it from the class)
        "table": int,
        "columns": str,
        "legend": str,
        "unit": str,
    }

    def run(self) -> list[nodes.Node]:
        """Return the drawing as a part of the page."""
        source = Path(self.env.doc2path(self.env.docname)).read_text(encoding="utf-8")
        heading, *rows = tables(source)[self.options["table"] - 1]
        columns = [int(number) for number in self.options["columns"].split(",")]
        for number in columns:
            if not any(_number(row[number]) is not None for row in rows):
                msg = f"{self.env.docname}: column {number} ({heading[number]}) has no numbers"
                raise ExtensionError(msg)
        legend = [name.strip() for name in self.options["legend"].split(",")]
        names = [_plain(row[0]) for row in rows]
        values = [[_number(row[number]) for row in rows] for number in columns]
        svg = _draw(names, dict(zip(legend, values, strict=True)), self.options["unit"])
        figure = nodes.container(classes=["table-bars"])
        figure += nodes.raw("", svg, format="html")
        return [figure]


def tables(source: str) -> list[list[list[str]]]:
    r"""Return the tables of a page in Markdown: rows of cells, the heading first.

    Examples
    --------
    >>> tables("text\n\n| a | b |\n|---|---|\n| x | 1 |\n")
    [[['a', 'b'], ['x', '1']]]
    """
    found: list[list[list[str]]] = []
    inside = False
    for line in source.splitlines():
        is_row = line.startswith("|")
        if is_row and not inside:
            found.append([])
        if is_row and not set(line) <= set("|-: "):
            found[-1].append([cell.strip() for cell in line.strip("|").split("|")])
        inside = is_row
    return found


def _number(cell: str) -> float | None:
    match = _NUMBER.match(cell)
    return float(match.group()) if match else None


def _plain(cell: str) -> str:
    return cell.replace("`", "")


def _draw(names: list[str], groups: dict[str, list[float | None]], unit: str) -> str:
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    places = range(len(names))
    height = 0.8 / len(groups)
    # Text stays text, so the page's font and colour apply; the salt makes equal builds equal.
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "medjax", "font.size": 9}):
        figure = Figure(figsize=(7.5, 0.5 + 0.42 * len(names)), layout="constrained")
        axes = figure.subplots()
        for number, (name, values) in enumerate(groups.items()):
            known = [(place, value) for place, value in zip(places, values, strict=True) if value]
            bars = axes.barh(
                [place + (number - (len(groups) - 1) / 2) * height for place, _ in known],
                [value for _, value in known],
                height,
                label=name,
                color=("#4c8bc4", "#e09f3e", "#6a9f58")[number],
            )
            axes.bar_label(bars, fmt="%g", padding=3)
        axes.set_yticks(places, names)
        axes.invert_yaxis()
        axes.set_xlabel(unit)
        axes.margins(x=0.1)
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False, loc="lower right")
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    return _in_the_colours_of_the_page(buffer.getvalue(), f"Bars: {unit} of {', '.join(names)}")


def _in_the_colours_of_the_page(svg: str, label: str) -> str:
    """Return the element alone, as wide as the page at most, drawn in its text's colour."""
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg[svg.index("<svg") :], flags=re.DOTALL)
    svg = re.sub(r' (width|height)="[\d.]+pt"', "", svg, count=2)
    style = "width: 100%; max-width: 45rem; fill: currentColor"
    svg = svg.replace("<svg ", f'<svg role="img" aria-label="{label}" style="{style}" ', 1)
    return svg.replace("#000000", "currentColor")


def setup(app: Any) -> dict[str, Any]:
    """Register the directive."""
    app.add_directive("table-bars", TableBars)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
