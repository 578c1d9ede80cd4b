"""Words, the units that are tagged; they are the same for every tokenizer."""

from __future__ import annotations

import re
import unicodedata

__all__ = ["find_words"]

# Scripts written without spaces between words. Each character is a word, and words that share a
# token are joined later, so the tokenizer decides.
_UNSPACED = (
    "CJK UNIFIED",
    "CJK COMPATIBILITY",
    "HIRAGANA",
    "KATAKANA",
    "HALFWIDTH KATAKANA",
    "THAI",
    "LAO",
    "KHMER",
    "MYANMAR",
    "TIBETAN",
)


class _Kinds(dict[int, str]):
    """Map code points to kinds of characters, each computed when it is first looked up.

    ``w`` is part of a word, ``a`` a word by itself, ``m`` a mark on the preceding character, ``f``
    an invisible format character, and a space ends a word.
    """

    def __missing__(self, code: int) -> str:
        character = chr(code)
        category = unicodedata.category(character)
        if character.isspace() or category[0] == "Z" or category == "Cc":
            kind = " "
        elif category == "Cf":
            kind = "f"
        elif category[0] == "M":
            kind = "m"
        elif category[0] in "LN":
            kind = "a" if unicodedata.name(character, "").startswith(_UNSPACED) else "w"
        else:
            kind = "a"
        self[code] = kind
        return kind


_KINDS = _Kinds()
_WORD = re.compile(r"w(?:[wmf]*[wm])?|[am]m*")


def find_words(text: str) -> list[tuple[int, int]]:
    """Return the offsets of the words of a text.

    A word is a run of letters and digits with their combining marks, or a single character of
    another kind: punctuation, a symbol, an emoji. White space and control characters belong to no
    word; invisible format characters (soft hyphens, joiners) belong to a word only between its
    letters. Each character of a script written without spaces (Chinese, Japanese, Thai, ...) is a
    word. BERT's pre-tokenizer (Devlin et al. 2019) splits words in the same way, except that it
    does not separate symbols such as the degree sign from adjacent letters.

    Parameters
    ----------
    text : str
        Any text, composed or decomposed.

    Returns
    -------
    list of (int, int)
        Start and end of each word in characters (Unicode code points), `end` exclusive, in order.

    Examples
    --------
    >>> text = "l'HTA, 5mg"
    >>> [text[start:end] for start, end in find_words(text)]
    ['l', "'", 'HTA', ',', '5mg']
    """
    return [match.span() for match in _WORD.finditer(text.translate(_KINDS))]
