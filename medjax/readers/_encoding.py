"""Bytes to text: what encoding was asked for, and which one the bytes look like."""

from __future__ import annotations

import codecs
from pathlib import Path

_BYTE_ORDER_MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32"),  # begins like that of UTF-16, so it comes first
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
# latin-1 reads any bytes: it comes where cp1252, which is the same for letters, cannot.
_CANDIDATES = ("cp1252", "cp850", "mac_roman", "latin-1")
_LETTERS = frozenset("àáâãäåæçèéêëìíîïñòóôõöøœùúûüýÿß")
_SIGNS = frozenset("°µ±²³½×§«»‘’“”–—…€\xa0")  # noqa: RUF001
_AROUND = 20  # characters shown on each side of a place


def decode(content: bytes, encoding: str, path: Path) -> str:
    r"""Return the text of bytes; a byte order mark stays, as ``"\ufeff"``.

    Parameters
    ----------
    content : bytes
        What a file holds.
    encoding : str
        Its encoding.
    path : Path
        Where the bytes come from, for messages.

    Raises
    ------
    ValueError
        If there is no such encoding or the bytes are not of it.
    """
    try:
        name = codecs.lookup(encoding).name
        if name == "utf-8-sig":
            name = "utf-8"
        elif content[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE) and name == "utf-16":
            name = "utf-16-le" if content.startswith(codecs.BOM_UTF16_LE) else "utf-16-be"
        text = content.decode(name)
    except LookupError as error:
        msg = f"found {encoding!r} as encoding; expected one of Python's, such as 'utf-8', 'cp1252'"
        raise ValueError(msg) from error
    except UnicodeError as error:
        place = getattr(error, "start", 0)
        raise ValueError(_refusal(content, encoding, path, place)) from error
    if text.count("\0") * 5 > len(text) or (
        name.startswith(("utf-16", "utf-32")) and _is_8_bit(content)
    ):
        raise ValueError(_refusal(content, encoding, path, max(content.find(0), 0)))
    return text


def likely_encoding(content: bytes) -> str | None:
    r"""Return the encoding that bytes look like, None if there is no telling.

    Parameters
    ----------
    content : bytes
        What a file holds.

    Examples
    --------
    >>> likely_encoding("fièvre à 39 °C".encode("cp1252"))
    'cp1252'
    >>> likely_encoding("fièvre à 39 °C".encode("utf-16"))
    'utf-16'
    """
    for mark, name in _BYTE_ORDER_MARKS:
        if content.startswith(mark):
            return name
    if content.count(0) * 5 > len(content):
        # Latin letters have their zero behind in little-endian UTF-16, in front in the other.
        return "utf-16-le" if content[1::2].count(0) >= content[::2].count(0) else "utf-16-be"
    if _decodes(content, "utf-8"):
        return "utf-8"
    scores = {name: _score(content.decode(name)) for name in _CANDIDATES if _decodes(content, name)}
    best = max(scores, key=lambda name: scores[name])
    return best if scores[best] > 0 else None


def mistaken_for_8_bit(content: bytes, encoding: str) -> str | None:
    """Return a piece of the text in UTF-8 if the encoding asked for has one byte a character.

    None is returned if the encoding has more, or the bytes are plain ASCII or no UTF-8: then
    nothing speaks against what was asked for.

    Parameters
    ----------
    content : bytes
        What a file holds.
    encoding : str
        The encoding asked for.
    """
    # In other encodings most bytes above 127 are nothing alone.
    nb_undefined = sum(bytes([b]).decode(encoding, "replace") == "\ufffd" for b in range(128, 256))
    if nb_undefined > 60 or content.isascii() or not _decodes(content, "utf-8"):
        return None
    place = next(place for place, byte in enumerate(content) if byte > 127)
    return _sample(content, "utf-8", place)


def _refusal(content: bytes, encoding: str, path: Path, place: int) -> str:
    byte = f"byte 0x{content[place]:02x} at position {place}" if content else "no text"
    found = f"{path}: found {byte}, expected text in {encoding}"
    if codecs.lookup(encoding).name.startswith("utf-8") and _is_damaged_utf_8(content):
        sample = _sample(content, "utf-8", place)
        return f"{found}; most of the file is, so mend it at {sample!r}"
    guess = likely_encoding(content)
    if guess is None:
        return f'{found}; give the encoding of the file, as in encoding="cp1252"'
    sample = _sample(content, guess, place)
    return f'{found}; it looks like {guess}, which reads {sample!r}: give encoding="{guess}"'


def _sample(content: bytes, encoding: str, place: int) -> str:
    text = content.decode(encoding, "replace")
    middle = len(content[:place].decode(encoding, "replace"))
    return text[max(middle - _AROUND, 0) : middle + _AROUND].strip()


def _decodes(content: bytes, encoding: str) -> bool:
    try:
        content.decode(encoding)
    except UnicodeDecodeError:
        return False
    return True


def _is_8_bit(content: bytes) -> bool:
    """Whether bytes are no UTF-16: they would have zeros, at least in line ends and spaces."""
    return bool(content) and 0 not in content and _decodes(content, "utf-8")


def _is_damaged_utf_8(content: bytes) -> bool:
    text = content.decode("utf-8", "replace")
    damaged = text.count("\ufffd")
    good = sum(char > "\x7f" for char in text) - damaged
    return damaged > 0 and good >= 3 * damaged


def _score(text: str) -> int:
    """Add up how much each character that is not ASCII looks like a part of Western prose."""
    score = 0
    for before, char in zip(" " + text, text, strict=False):
        if char.isascii() or char in _SIGNS:
            continue
        if before.lower() in _LETTERS:  # several in a row are letters of another alphabet
            score -= 2
        elif char in _LETTERS:
            score += 2
        elif char.lower() in _LETTERS:  # a capital does not follow a small letter
            score += -2 if before.islower() else 1
        else:
            score -= 1
    return score
