import time

import pytest

from medjax.tagging import TokenSpan, spans_to_tags, split_tag, tag_names, tags_to_spans


def test_tag_ids_are_those_of_medkit():
    # medkit 0.17: convert_labels_to_tags(["test", "problem"], scheme)
    assert tag_names(["test", "problem"], "iob2") == (
        "O", "B-test", "I-test", "B-problem", "I-problem",
    )  # fmt: skip
    assert tag_names(["test"], "bilou") == ("O", "B-test", "I-test", "L-test", "U-test")


@pytest.mark.parametrize("labels", [["a", "a"], [""]])
def test_tag_names_refuses_labels_that_are_equal_or_empty(labels):
    with pytest.raises(ValueError, match="expected different, non-empty names"):
        tag_names(labels, "iob2")


def test_unknown_scheme_and_rule_are_named_with_what_is_allowed():
    with pytest.raises(ValueError, match=r"'bio'.*\['bilou', 'iob2'\]"):
        tag_names(["a"], "bio")
    with pytest.raises(ValueError, match=r"'bio'.*\['bilou', 'conlleval', 'iob2'\]"):
        tags_to_spans([], "bio")


@pytest.mark.parametrize("tag", ["", "B", "B-", "-X", "X-Drug", "BI-Drug", "b-Drug", "o"])
def test_what_is_no_tag_is_named(tag):
    with pytest.raises(ValueError, match=rf"tag '{tag}' found.*expected O or"):
        split_tag(tag)


def test_a_strict_rule_refuses_prefixes_of_other_schemes():
    with pytest.raises(ValueError, match="L-a"):
        tags_to_spans(["B-a", "L-a"], "iob2")
    with pytest.raises(ValueError, match="E-a"):
        tags_to_spans(["B-a", "E-a"], "bilou")


@pytest.mark.parametrize(
    ("rule", "tags", "spans"),
    [
        ("iob2", "B-a I-a I-b O I-a", [("a", 0, 2)]),
        ("iob2", "B-a B-a I-a", [("a", 0, 1), ("a", 1, 3)]),
        ("bilou", "U-a B-a L-a B-a I-a O L-a", [("a", 0, 1), ("a", 1, 3)]),
        ("bilou", "B-a I-a B-a L-a L-a", [("a", 2, 4)]),
        ("bilou", "B-a I-b L-b", []),
        (
            "conlleval",
            "I-a I-a I-b O I-a B-a",
            [("a", 0, 2), ("b", 2, 3), ("a", 4, 5), ("a", 5, 6)],
        ),
        ("conlleval", "B-a E-a I-a S-a E-a", [("a", 0, 2), ("a", 2, 3), ("a", 3, 4), ("a", 4, 5)]),
        ("conlleval", "B-a L-a B-a L-a U-a", [("a", 0, 2), ("a", 2, 4), ("a", 4, 5)]),
    ],
)
def test_rules(rule, tags, spans):
    assert tags_to_spans(tags.split(), rule) == [TokenSpan(*span) for span in spans]


@pytest.mark.parametrize(
    ("spans", "message"),
    [
        ([("a", 0, 4)], "expected a label and 0 <= first < stop <= 3"),
        ([("a", 1, 1)], "expected a label"),
        ([("", 0, 1)], "expected a label"),
        ([("a", 0, 2), ("b", 1, 3)], "overlaps another"),
    ],
)
def test_spans_that_cannot_be_tagged_are_refused(spans, message):
    with pytest.raises(ValueError, match=message):
        spans_to_tags(spans, 3, "iob2")


def test_a_quarter_of_a_million_tags_are_read_in_linear_time():
    tags = ["B-a", "I-a", "O", "I-b", "B-b"] * 50_000
    start = time.perf_counter()
    spans = tags_to_spans(tags)
    assert len(spans) == 150_000
    assert time.perf_counter() - start < 5
