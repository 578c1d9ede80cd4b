"""The report of a run: one file, escaped, without a network, with or without texts."""

import html.parser
import re

import pytest

from medjax import Options, TrainerConfig
from medjax.callbacks import ErrorExample, write_report
from medjax.callbacks.highlight import has_error, highlighted
from medjax.metrics import (
    Interval,
    confusion_rows,
    entity_confusion,
    entity_scores,
    format_scores,
    score_rows,
)
from medjax.text import Entity

HISTORY = [
    {"train": {"loss": 0.5}, "eval": {"loss": 0.6, "f1": 0.7}},
    {"train": {"loss": 0.4}, "eval": {"loss": 0.5, "f1": 0.9}},
    {"train": {"loss": 0.3}, "eval": {"loss": 0.7, "f1": float("nan")}},
]
CONFIG = TrainerConfig(
    "runs/<b>", batch_size=16, checkpoint_metric="f1", minimize_checkpoint_metric=False
)
NASTY = '<script>alert("x")</script> & fever'
FEVER = Entity("Sign<i>", NASTY.index("fever"), len(NASTY))
EMPTY = {"meta", "path", "use", "br"}


class Page(html.parser.HTMLParser):
    """Reads a page; fails where tags are not closed in order."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.links, self.ids, self.data = [], [], [], [], []
        self.feed(text)
        assert self.open == []

    def handle_startendtag(self, tag, attributes):
        self._look_at(tag, attributes)

    def handle_starttag(self, tag, attributes):
        self._look_at(tag, attributes)
        if tag not in EMPTY:
            self.open.append(tag)

    def _look_at(self, tag, attributes):
        self.tags.append(tag)
        names = dict(attributes)
        self.links += [names[n] for n in ("src", "href", "xlink:href") if n in names]
        self.ids += [names["id"]] if "id" in names else []

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "style" not in self.open:
            self.data.append(data)

    @property
    def text(self):
        return " ".join(" ".join(self.data).split())


def report(folder, **arguments):
    path = folder / "new" / "report.html"
    arguments = {"metrics": ("loss", "f1"), **arguments}
    write_report(path, HISTORY, CONFIG, Options(max_grad_norm=1.0), **arguments)
    text = path.read_text(encoding="utf-8")
    assert [file.name for file in path.parent.iterdir()] == ["report.html"]
    return Page(text), text


def test_a_report_holds_everything_and_loads_nothing(tmp_path):
    true = [[("Drug", 0, 3), ("Sign", 4, 9)]]
    predicted = [[("Drug", 0, 3), ("Drug", 4, 9)]]
    page, text = report(
        tmp_path,
        title="A <title>",
        tables={"Scores & more": score_rows(entity_scores(true, predicted))},
        confusion=confusion_rows(entity_confusion(true, predicted)),
        errors=[ErrorExample(NASTY, [FEVER], [], "letter <7>")],
        settings={"model": "<bert>"},
    )
    for part in (
        "A <title>",
        "Best evaluation: f1 0.9 in epoch 2.",
        "Scores & more",
        "true / predicted",
        "1 of 1 texts with errors.",
        NASTY,
        "Sign<i> missed",
        "letter <7>",
        "<bert>",
        "TrainerConfig.batch_size 16",
        "runs/<b>",
        "Python",
        "jax",
        "cpu",
    ):
        assert part in page.text
    assert page.tags.count("svg") == 2
    assert "script" not in page.tags
    assert all(link.startswith("#") for link in page.links)
    assert not re.search(r"url\((?!#)|@import", text)
    assert len(page.ids) == len(set(page.ids))
    assert {link[1:] for link in page.links} <= set(page.ids)
    assert "default-src 'none'" in text


def test_texts_can_be_left_out(tmp_path):
    page, text = report(tmp_path, errors=[ErrorExample(NASTY, [FEVER])], max_errors=0)
    assert "fever" not in text
    assert "Errors" not in page.text


def test_only_the_first_texts_with_errors_are_shown(tmp_path):
    right = ErrorExample("right here", [Entity("A", 0, 5)], [Entity("A", 0, 5, 0.9)])
    without = ErrorExample("no entities", caption="letter")
    wrong = [ErrorExample(f"wrong {n}", [Entity("A", 0, 5)]) for n in range(5)]
    page, _ = report(tmp_path, errors=[right, without, *wrong], max_errors=2)
    assert "2 of 5 texts with errors." in page.text
    assert "right here" not in page.text
    assert "no entities" not in page.text
    assert page.tags.count("blockquote") == 2


def test_a_text_without_entities_may_be_wrong(tmp_path):
    example = ErrorExample("a letter", caption="cardiology; predicted: none", is_wrong=True)
    page, _ = report(tmp_path, errors=[example])
    assert "cardiology; predicted: none a letter" in page.text
    assert "annotated only" not in page.text


def test_settings_that_are_not_the_default_are_bold(tmp_path):
    _, text = report(tmp_path)
    bold = re.findall(r"<th>([^<]+)</th><td><strong>", text)
    assert {"TrainerConfig.batch_size", "Options.max_grad_norm"} <= set(bold)
    assert "TrainerConfig.learning_rate" not in bold
    assert "Options.padding" not in bold


def test_an_interval_is_not_broken_and_other_cells_are_as_they_are(tmp_path):
    _, text = report(tmp_path, tables={"Scores": [["", "f1"], ["a", Interval(0.5, 0.25, 0.75)]]})
    assert "<td>0.500 <span>[0.250, 0.750]</span></td>" in text
    assert "3 epochs; written" in text


def test_shades_are_shares_of_a_row(tmp_path):
    rows = [["true / predicted", "a", "b"], ["a", 3, 1], ["b", 0, "-"]]
    _, text = report(tmp_path, confusion=rows)
    assert re.findall(r"--share:(\d+)%", text) == ["75", "25"]


def test_a_page_follows_the_colours_of_the_browser_and_the_width_of_a_phone(tmp_path):
    _, text = report(tmp_path)
    assert "prefers-color-scheme: dark" in text
    assert "width=device-width" in text
    svg = text[text.index("<svg") : text.index("</svg>")]
    assert "currentColor" in svg
    assert "#010203" not in svg
    assert not re.match(r"<svg[^>]* (width|height)=", svg)


def test_rows_of_different_lengths_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"rows of \[1, 2\] cells; expected as many in each"):
        report(tmp_path, tables={"Scores": [["", "f1"], ["a"]]})


def test_a_metric_that_is_not_there_is_refused_before_anything_is_written(tmp_path):
    with pytest.raises(ValueError, match="no metric 'recall'"):
        report(tmp_path, metrics=("recall",))
    assert list(tmp_path.iterdir()) == []


def marks(example):
    pattern = r'<mark class="([a-z ]+)">([^<]*)((?:<small>[^<]*</small>)*)</mark>'
    return [
        (kinds, text, re.findall("<small>([^<]*)", notes))
        for kinds, text, notes in re.findall(pattern, highlighted(example))
    ]


@pytest.mark.parametrize(
    ("true", "predicted", "expected"),
    [
        ([("A", 0, 3)], [("A", 0, 3)], [("right", "one", ["A"])]),
        ([("A", 0, 3)], [], [("missed", "one", ["A missed"])]),
        ([], [("B", 4, 7)], [("spurious", "two", ["B spurious"])]),
        (
            [("A", 0, 3)],
            [("B", 0, 3)],
            [("missed spurious", "one", ["A missed", "B spurious"])],
        ),
        (
            [("A", 0, 7)],
            [("A", 4, 13)],
            [
                ("missed", "one ", []),
                ("missed spurious", "two", ["A missed"]),
                ("spurious", " three", ["A spurious"]),
            ],
        ),
    ],
)
def test_marks_say_what_is_right_missed_and_spurious(true, predicted, expected):
    example = ErrorExample(
        "one two three", [Entity(*e) for e in true], [Entity(*e, 0.5) for e in predicted]
    )
    assert marks(example) == expected
    assert re.sub("<small>.*?</small>|<[^>]*>", "", highlighted(example)) == "one two three"
    assert has_error(example) == (true != predicted)


def test_an_entity_outside_of_its_text_is_refused():
    with pytest.raises(ValueError, match="'A' from 2 to 9 is not within its text of 5 characters"):
        highlighted(ErrorExample("fever", [Entity("A", 2, 9)]))


def test_rows_are_those_of_the_text_tables():
    scores = entity_scores([[("Drug", 0, 3)]], [[("Drug", 0, 3)]])
    printed = [line.split() for line in format_scores(scores).splitlines()]
    assert [[cell for cell in row if cell] for row in score_rows(scores)] == printed


def test_counts_and_settings_are_shown_with_all_digits(tmp_path):
    history = [{"train": {"loss": 0.5}, "eval": {"support": 123456, "loss": 0.123456}}]
    config = TrainerConfig("runs", learning_rate=2.34567e-5)
    write_report(tmp_path / "a.html", config=config, history=history)
    page = (tmp_path / "a.html").read_text()
    assert "<td>123456</td>" in page
    assert "<td>0.1235</td>" in page
    assert "2.34567e-05" in page
