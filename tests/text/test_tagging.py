import time

import pytest

from medjax.text.tagging import (
    TagError,
    TokenSpan,
    scheme_of,
    spans_to_tags,
    split_tag,
    standard_tags,
    tag_names,
    tags_to_spans,
)
from medjax.text.tagging.notations import other_reading


def test_tag_ids_are_those_of_medkit():
    # medkit 0.17: convert_labels_to_tags(["test", "problem"], scheme)
    assert tag_names(["test", "problem"], "iob2") == (
        "O", "B-test", "I-test", "B-problem", "I-problem",
    )  # fmt: skip
    assert tag_names(["test"], "bilou") == ("O", "B-test", "I-test", "L-test", "U-test")


@pytest.mark.parametrize("labels", [["a", "a"], [""]])
def test_tag_names_refuses_labels_that_are_equal_or_empty(labels):
    with pytest.raises(ValueError, match="expected distinct, non-empty names"):
        tag_names(labels, "iob2")


def test_the_error_names_an_unknown_scheme_or_rule_and_the_known_ones():
    with pytest.raises(ValueError, match=r"'bio'.*\['bilou', 'io', 'iob2', 'iobes'\]"):
        tag_names(["a"], "bio")
    with pytest.raises(ValueError, match=r"'bio'.*\['bilou', 'conlleval', 'io', 'iob2', 'iobes'\]"):
        tags_to_spans([], "bio")


@pytest.mark.parametrize("tag", ["", "B", "B-", "-X", "X-Drug", "BI-Drug", "b-Drug", "o"])
def test_the_error_names_an_invalid_tag(tag):
    with pytest.raises(ValueError, match=rf"found the tag '{tag}' .*expected O, or"):
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
        ("iobes", "S-a B-a E-a B-a I-a O E-a", [("a", 0, 1), ("a", 1, 3)]),
        ("io", "I-a I-a I-b O I-a", [("a", 0, 2), ("b", 2, 3), ("a", 4, 5)]),
        (
            "conlleval",
            "I-a I-a I-b O I-a B-a",
            [("a", 0, 2), ("b", 2, 3), ("a", 4, 5), ("a", 5, 6)],
        ),
        ("conlleval", "B-a E-a I-a S-a E-a", [("a", 0, 2), ("a", 2, 3), ("a", 3, 4), ("a", 4, 5)]),
        ("conlleval", "B-a L-a B-a L-a U-a", [("a", 0, 2), ("a", 2, 4), ("a", 4, 5)]),
    ],
)
def test_each_rule_reads_its_tags(rule, tags, spans):
    assert tags_to_spans(tags.split(), rule) == [TokenSpan(*span) for span in spans]


@pytest.mark.parametrize(
    ("scheme", "tags"),
    [
        ("iob2", "B-a I-a I-a O B-b"),
        ("bilou", "B-a I-a L-a O U-b"),
        ("iobes", "B-a I-a E-a O S-b"),
        ("io", "I-a I-a I-a O I-b"),
    ],
)
def test_each_scheme_writes_its_tags(scheme, tags):
    assert spans_to_tags([("b", 4, 5), ("a", 0, 3)], 5, scheme) == tags.split()
    assert scheme_of(tags.split()) == scheme


@pytest.mark.parametrize(
    ("written", "standard"),
    [
        ("O B-Drug I-Drug", "O B-Drug I-Drug"),
        ("O B-Side-effect", "O B-Side-effect"),
        ("o b-drug i-drug", "O B-drug I-drug"),
        ("O B_D I_D E_D S_D", "O B-D I-D E-D S-D"),
        ("O B-D M-D E-D W-D", "O B-D I-D E-D S-D"),
        ("B:D I:D", "B-D I-D"),
        ("O Drug-B Drug-I", "O B-Drug I-Drug"),
        ("O B I", "O B-Entity I-Entity"),
        ("O Drug Sign", "O I-Drug I-Sign"),
        ("O", "O"),
        ("", ""),
        # Short files, of which not all letters of the scheme occur.
        ("O B-D", "O B-D"),
        ("O I-D", "O I-D"),
        ("O B-D E-D", "O B-D E-D"),
        ("O S-D", "O S-D"),
        ("O U-D", "O U-D"),
        ("O B", "O B-Entity"),
        # Other notations: one label has enough letters for a scheme.
        ("O D_B D_I S_B", "O B-D I-D B-S"),
        ("O D-B D-E D-S", "O B-D E-D S-D"),
        ("O D-B D-L D-U", "O B-D L-D U-D"),
        ("O D-B D-M D-E D-W", "O B-D I-D E-D S-D"),
        # Labels that only look like it.
        ("O Hepatitis_B Hepatitis_E", "O I-Hepatitis_B I-Hepatitis_E"),
        ("O Hepatitis-B", "O I-Hepatitis-B"),
        ("O Hepatitis-B Drug", "O I-Hepatitis-B I-Drug"),
        ("O PHASE_I PHASE_S", "O I-PHASE_I I-PHASE_S"),
        ("O S_phase M_phase", "O I-S_phase I-M_phase"),
        ("O S-phase M-phase", "O I-S-phase I-M-phase"),
        ("O E_coli", "O I-E_coli"),
        ("O E_coli Drug", "O I-E_coli I-Drug"),
        ("O B_cell", "O I-B_cell"),
        ("O B_cell T_cell", "O I-B_cell I-T_cell"),
        ("O D_B D_I D_L D_E", "O I-D_B I-D_I I-D_L I-D_E"),  # no scheme has all letters
        ("O S M", "O I-S I-M"),
    ],
)
def test_other_notations_become_standard_tags(written, standard):
    assert list(standard_tags(written.split()).values()) == standard.split()


@pytest.mark.parametrize(
    ("written", "tag"),
    [
        ("LABEL_0 LABEL_1", "LABEL_0"),
        ("O LABEL_1", "LABEL_1"),
        ("O B-a [PAD]", "[PAD]"),
        ("NN VB", "NN"),  # a column of something else: a bare label is only read if there is an O
        ("O 1 2", "1"),
        ("O B-a I_a", "I_a"),
        ("O B-a Drug", "Drug"),
        ("O B- I-", "B-"),
        ("O B_a I_a Drug", "Drug"),
        ("Hepatitis_B Hepatitis_E", "Hepatitis_B"),
        ("Hepatitis_B Drug", "Drug"),
    ],
)
def test_the_error_names_a_tag_of_unknown_notation(written, tag):
    with pytest.raises(TagError, match="expected O, or a prefix") as caught:
        standard_tags(written.split())
    assert caught.value.tag == tag


@pytest.mark.parametrize(
    ("written", "other"),
    [
        ("O Hepatitis_B Hepatitis_E", "B-Hepatitis E-Hepatitis"),
        ("O S_phase M_phase", "S-phase I-phase"),
        ("O b_drug", "B-drug"),
        ("O S-phase", "I-S-phase"),
        ("O Hepatitis-B Drug", ""),
        ("O B-D", ""),
        ("O D_B D_I", ""),
        ("O Drug", ""),
        ("O", ""),
        ("S-D", ""),
    ],
)
def test_tags_with_two_readings_have_another_one(written, other):
    assert list(other_reading(standard_tags(written.split())).values()) == other.split()


@pytest.mark.parametrize("tags", [["O"], ["O", "B-a", "L-a", "E-a"]])
def test_tags_of_no_scheme_are_refused(tags):
    with pytest.raises(ValueError, match="follow no tagging scheme"):
        scheme_of(tags)


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
