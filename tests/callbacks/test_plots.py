"""Learning curves."""

import pytest
from matplotlib import image

import medjax

HISTORY = [
    {"train": {"loss": 0.5}, "eval": {"loss": 0.6, "f1": 0.2}},
    {"train": {"loss": 0.4}, "eval": {"loss": 0.5, "f1": 0.4}},
]


def test_a_panel_for_each_metric_and_a_line_for_each_phase_that_has_it(tmp_path):
    figure = medjax.plot_history(HISTORY, tmp_path / "curves.png", metrics=("loss", "f1"))
    loss, f1 = figure.axes
    assert [list(line.get_ydata()) for line in loss.lines] == [[0.5, 0.4], [0.6, 0.5]]
    assert [list(line.get_ydata()) for line in f1.lines] == [[0.2, 0.4]]
    assert [text.get_text() for text in f1.get_legend().get_texts()] == ["eval"]
    assert image.imread(tmp_path / "curves.png").ndim == 3


def test_a_notebook_shows_the_figure(tmp_path):
    content = medjax.plot_history(HISTORY)._repr_png_()
    (tmp_path / "shown.png").write_bytes(content)
    height, width, _ = image.imread(tmp_path / "shown.png").shape
    assert (height, width) == (350, 500)


def test_a_metric_that_no_phase_has_is_refused():
    with pytest.raises(ValueError, match=r"no metric 'auroc'; choose among \['f1', 'loss'\]"):
        medjax.plot_history(HISTORY, metrics=("auroc",))
