"""Words of a text, and the words that its tokens belong to."""

import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medjax.text import find_words
from medjax.text.alignment import Word, tokens_to_words


def words(text):
    return [text[start:end] for start, end in find_words(text)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", []),
        (" \t\r\n\xa0\u2003\x00", []),
        ("Pas d'AVC, ni HTA/diabète;", "Pas d ' AVC , ni HTA / diabète ;"),
        ("Fiebre(38,5ºC)", "Fiebre ( 38 , 5ºC )"),
        ("37,5°C ±2 µg", "37 , 5 ° C ± 2 µg"),
        ("1g/8h HbA1c B12 10²", "1g / 8h HbA1c B12 10²"),
        ("snake_case", "snake _ case"),
        (unicodedata.normalize("NFD", "œdème aiguë"), None),
        ("co\u00adeur fever\u200b", ["co\u00adeur", "fever"]),
        ("ok🙂pain", "ok 🙂 pain"),
        ("\U0001f469\U0001f3fd\u200d⚕\ufe0f", ["\U0001f469", "\U0001f3fd", "⚕\ufe0f"]),
        ("高血压 ไข้", ["高", "血", "压", "ไ", "ข้"]),
        ("고혈압", ["고혈압"]),
        ("ſ٣٤ प्रकार", ["ſ٣٤", "प्रकार"]),
    ],
)
def test_words_of_a_text(text, expected):
    if expected is None:
        expected = text.split()
    assert words(text) == (expected.split() if isinstance(expected, str) else expected)


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=30))
def test_words_are_in_order_and_contain_every_letter(text):
    offsets = find_words(text)
    bounds = [bound for word in offsets for bound in word]
    assert bounds == sorted(bounds)
    assert all(start < end for start, end in offsets)
    covered = "".join(text[start:end] for start, end in offsets)
    assert [c for c in covered if c.isalnum()] == [c for c in text if c.isalnum()]
    assert not any(c.isspace() for c in covered)


def test_white_space_around_a_token_is_ignored():
    text = " no  fever\n"
    offsets = [(0, 3), (3, 4), (3, 10), (10, 11)]
    assert tokens_to_words(text, offsets) == [Word(1, 3, 0), Word(5, 10, 2)]


def test_words_that_share_a_token_are_joined_and_words_without_one_left_out():
    assert tokens_to_words("a/b c\ufe0f🙂 d", [(0, 1), (1, 3), (8, 9)]) == [
        Word(0, 1, 0),
        Word(1, 3, 1),
        Word(8, 9, 2),
    ]


def test_a_word_keeps_the_mark_that_its_tokens_lack():
    text = unicodedata.normalize("NFD", "santé ok")
    assert tokens_to_words(text, [(0, 5), (7, 9)]) == [Word(0, 6, 0), Word(7, 9, 1)]
    assert tokens_to_words(text, [(0, 3), (3, 5), (7, 9)], subtokens=True) == [
        Word(0, 3, 0),
        Word(3, 6, 1),
        Word(7, 9, 2),
    ]


def test_tokens_that_share_a_character_are_one_word_even_with_subtokens():
    offsets = [(0, 1), (0, 1), (1, 3)]
    assert tokens_to_words("éab", offsets, subtokens=True) == [Word(0, 1, 0), Word(1, 3, 2)]


def test_the_mark_before_a_text_is_not_its_first_token():
    # Metaspace tokenizers make it a token with the offsets of the first character.
    assert tokens_to_words("HTA", [(0, 0), (0, 1), (0, 3), (0, 0)]) == [Word(0, 3, 2)]
