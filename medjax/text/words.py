"""Words: what gets one tag each, the same for every tokenizer."""

from __future__ import annotations

import re
import unicodedata

# Written without spaces between words: every character stands alone, so that tokens decide.
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
    """The kind of each character by its code point, found when it is first met.

    ``w`` is part of a word, ``a`` a word alone, ``m`` a mark on the character before, ``f`` an
    invisible format character, and a space ends a word.
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
    """Return the words of a text.

    A word is a run of letters, digits and the marks on them, or a single character of another
    kind: punctuation, a symbol, an emoji. White space and control characters are in no word;
    invisible format characters (soft hyphen, joiners) are in a word only between its letters.
    Characters of scripts that are written without spaces (Chinese, Japanese, Thai, ...) are words
    of their own. This is how BERT's pre-tokenizer (Devlin et al. 2019) cuts words, but for symbols
    such as the degree sign, which it leaves in the word beside them.

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
