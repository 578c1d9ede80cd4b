"""Laws of spans, tags, entities and sentences, on random examples."""

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medjax.metrics import character_error_rate, span_scores
from medjax.text import Document, Entity, split_sentences, without_overlaps
from medjax.text.alignment import entities_to_tags, spans_to_entities
from medjax.text.tagging import TokenSpan, spans_to_tags, tag_names, tags_to_spans

LABELS = st.sampled_from(["a", "b-c", "O"])
SCHEMES = pytest.mark.parametrize("scheme", ["iob2", "bilou", "iobes"])
QUICK = settings(max_examples=60, deadline=None)


@st.composite
def token_spans(draw):
    """Spans that do not overlap, and the number of tokens."""
    spans, position = [], 0
    for label in draw(st.lists(LABELS, max_size=6)):
        first = position + draw(st.integers(0, 2))
        position = first + draw(st.integers(1, 4))
        spans.append(TokenSpan(label, first, position))
    return spans, position + draw(st.integers(0, 2))


@st.composite
def entities_of_a_text(draw):
    text = draw(st.text(alphabet="aB1.?! \n", max_size=40))
    pair = st.tuples(st.integers(0, len(text)), st.integers(0, len(text)))
    ends = draw(st.lists(pair, max_size=12))
    entities = [Entity(draw(LABELS), min(pair), max(pair)) for pair in ends if pair[0] != pair[1]]
    return text, entities


def overlap(one, other):
    return one.start < other.end and other.start < one.end


@SCHEMES
@QUICK
@given(token_spans())
def test_spans_to_tags_to_spans_is_the_identity(scheme, spans_and_length):
    spans, length = spans_and_length
    tags = spans_to_tags(spans, length, scheme)
    assert len(tags) == length
    assert tags_to_spans(tags, scheme) == spans
    assert tags_to_spans(tags, "conlleval") == spans


@SCHEMES
@QUICK
@given(st.data())
def test_spans_read_from_any_tags_do_not_overlap(scheme, data):
    tags = data.draw(st.lists(st.sampled_from(tag_names(["a", "b"], scheme)), max_size=20))
    for rule in (scheme, "conlleval"):
        spans = tags_to_spans(tags, rule)
        bounds = [bound for span in spans for bound in (span.first, span.stop)]
        assert bounds == sorted(bounds)
        assert all(span.first < span.stop <= len(tags) for span in spans)
        # Written as tags and read again, they are the same spans.
        assert tags_to_spans(spans_to_tags(spans, len(tags), scheme), rule) == spans


@SCHEMES
@QUICK
@given(token_spans())
def test_entities_on_the_edges_of_tokens_survive_tagging(scheme, spans_and_length):
    spans, length = spans_and_length
    offsets = [(0, 0), *((3 * token, 3 * token + 2) for token in range(length)), (0, 0)]
    entities = tuple(Entity(s.label, 3 * s.first, 3 * s.stop - 1) for s in spans)
    tags = entities_to_tags(entities, offsets, scheme)
    assert spans_to_entities(tags_to_spans(tags, scheme), offsets) == entities


@QUICK
@given(entities_of_a_text())
def test_without_overlaps_keeps_disjoint_entities_and_drops_no_others(text_and_entities):
    _, entities = text_and_entities
    kept, nb_dropped = without_overlaps(entities)
    assert len(kept) + nb_dropped == len(entities)
    assert list(kept) == sorted(kept, key=lambda entity: entity.start)
    assert not any(overlap(one, other) for one, other in pairwise(kept))
    for entity in entities:
        length = entity.end - entity.start
        rivals = [other for other in kept if overlap(entity, other)]
        assert max(other.end - other.start for other in rivals) >= length
    assert without_overlaps(kept) == (kept, 0)


@QUICK
@given(entities_of_a_text())
def test_sentences_contain_every_entity_and_every_word(text_and_entities):
    text, entities = text_and_entities
    document = Document(text, without_overlaps(entities)[0])
    sentences = split_sentences(document)
    assert "".join("".join(s.text.split()) for s in sentences) == "".join(text.split())
    covered = [(e.label, s.text[e.start : e.end]) for s in sentences for e in s.entities]
    assert covered == [(e.label, text[e.start : e.end]) for e in document.entities]


@QUICK
@given(st.lists(st.lists(st.sampled_from(tag_names(["a", "b"], "iob2")), max_size=8), max_size=5))
def test_perfect_predictions_score_one(tags):
    scores = span_scores(tags, tags)
    expected = 1.0 if scores["support"] else 0.0
    assert scores["micro_f1-score"] == scores["macro_f1-score"] == expected
    assert scores["weighted_f1-score"] == expected


@QUICK
@given(st.text(alphabet="ab", min_size=1, max_size=12), st.text(alphabet="ab", max_size=12))
def test_errors_are_a_distance(one, other):
    errors = character_error_rate([one], [other]) * len(one)
    longest = max(len(one), len(other))
    assert abs(len(one) - len(other)) <= round(errors) <= longest
    assert (errors == 0) == (one == other)
    if other:
        assert round(errors) == round(character_error_rate([other], [one]) * len(other))
