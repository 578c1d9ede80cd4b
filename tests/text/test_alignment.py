import numpy as np
import pytest

from medjax.text import Entity
from medjax.text.alignment import entities_to_spans, entities_to_tags, spans_to_entities
from medjax.text.tagging import TokenSpan


def test_a_token_that_shares_a_character_belongs_to_the_entity():
    offsets = [(0, 4), (4, 8), (8, 12)]
    assert entities_to_tags([Entity("a", 3, 9)], offsets, "bilou") == ["B-a", "I-a", "L-a"]


def test_special_tokens_and_padding_are_outside():
    offsets = np.array([(0, 0), (0, 3), (3, 6), (0, 0), (0, 0)])
    assert entities_to_tags([Entity("a", 0, 6)], offsets, "iob2") == ["O", "B-a", "I-a", "O", "O"]


def test_a_shared_token_goes_to_the_entity_that_starts_first():
    offsets = [(0, 4), (4, 6)]
    entities = [Entity("b", 2, 6), Entity("a", 0, 2)]
    assert entities_to_spans(entities, offsets) == [TokenSpan("a", 0, 1), TokenSpan("b", 1, 2)]
    assert entities_to_spans(entities, [(0, 6)]) == [TokenSpan("a", 0, 1)]


@pytest.mark.parametrize("order", [1, -1])
def test_of_entities_that_overlap_the_longest_is_kept_and_no_rest_of_another(order):
    offsets = [(0, 5), (6, 10), (11, 13), (14, 20)]
    entities = [Entity("b", 0, 5), Entity("a", 0, 10), Entity("c", 6, 13), Entity("c", 14, 20)]
    spans = entities_to_spans(entities[::order], offsets)
    assert spans == [TokenSpan("a", 0, 2), TokenSpan("c", 3, 4)]
    later = [Entity("a", 0, 5), Entity("b", 4, 13)]
    assert entities_to_spans(later[::order], offsets) == [TokenSpan("b", 0, 3)]


def test_a_truncated_entity_is_left_out():
    assert entities_to_spans([Entity("a", 10, 12)], [(0, 4)]) == []
    assert entities_to_spans([Entity("a", 0, 2)], []) == []


def test_an_empty_token_splits_an_entity():
    spans = entities_to_spans([Entity("a", 0, 4)], [(0, 2), (2, 2), (2, 4)])
    assert spans == [TokenSpan("a", 0, 1), TokenSpan("a", 2, 3)]


def test_spans_over_special_tokens_cover_the_text_of_the_others():
    offsets = [(0, 0), (0, 3), (3, 6), (0, 0)]
    assert spans_to_entities([("a", 0, 4)], offsets) == (Entity("a", 0, 6),)
    assert spans_to_entities([("a", 0, 1)], offsets) == ()


def test_spans_that_meet_inside_a_character_do_not_overlap():
    offsets = [(0, 1), (1, 2), (1, 2), (2, 3)]
    spans = [("a", 0, 2), ("b", 2, 4)]
    assert spans_to_entities(spans, offsets) == (Entity("a", 0, 2), Entity("b", 2, 3))


@pytest.mark.parametrize("offsets", [[(0, 3, 4)], [0, 3], [(0.0, 3.0)]])
def test_offsets_of_another_shape_are_refused(offsets):
    with pytest.raises(ValueError, match=r"expected integers of shape \(tokens, 2\)"):
        entities_to_spans([], offsets)


def test_offsets_that_go_backwards_are_refused():
    with pytest.raises(ValueError, match="go backwards"):
        entities_to_spans([], [(0, 3), (3, 5), (0, 0), (0, 4)])


def test_a_span_outside_the_tokens_is_refused():
    with pytest.raises(ValueError, match="expected 0 <= first < stop <= 1"):
        spans_to_entities([("a", 0, 2)], [(0, 3)])
