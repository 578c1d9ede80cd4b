"""Decode bytes, and guess the encoding where the requested one does not fit."""

from __future__ import annotations

import codecs
from pathlib import Path

_BYTE_ORDER_MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32"),  # before UTF-16, as its mark begins with that of UTF-16
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
# latin-1 decodes any bytes and has the letters of cp1252: it is last, for bytes cp1252 lacks.
_CANDIDATES = ("cp1252", "cp850", "mac_roman", "latin-1")
_LETTERS = frozenset("àáâãäåæçèéêëìíîïñòóôõöøœùúûüýÿß")
_SIGNS = frozenset("°µ±²³½×§«»‘’“”–—…€\xa0")  # noqa: RUF001
_AROUND = 20  # number of characters shown on each side of a position


def decode(content: bytes, encoding: str, path: Path) -> str:
    r"""Return the text of a file; a byte order mark is kept, as ``"\ufeff"``.

    Parameters
    ----------
    content : bytes
        Content of the file.
    encoding : str
        Its encoding.
    path : Path
        The file, for error messages.

    Raises
    ------
    ValueError
        If there is no such encoding, or the bytes are not text in it.

    Examples
    --------
    >>> decode(b"fi\xe8vre", "cp1252", Path("note.txt"))
    'fièvre'
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
        position = getattr(error, "start", 0)
        raise ValueError(_refusal(content, encoding, path, position)) from error
    if text.count("\0") * 5 > len(text) or (
        name.startswith(("utf-16", "utf-32")) and _is_8_bit(content)
    ):
        raise ValueError(_refusal(content, encoding, path, max(content.find(0), 0)))
    return text


def likely_encoding(content: bytes) -> str | None:
    r"""Return the most likely encoding of bytes, or None if none is likely.

    Parameters
    ----------
    content : bytes
        Content of a file.

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
        # The zero of a Latin letter is its second byte in little-endian UTF-16, else its first.
        return "utf-16-le" if content[1::2].count(0) >= content[::2].count(0) else "utf-16-be"
    if _decodes(content, "utf-8"):
        return "utf-8"
    scores = {name: _score(content.decode(name)) for name in _CANDIDATES if _decodes(content, name)}
    best = max(scores, key=lambda name: scores[name])
    return best if scores[best] > 0 else None


def mistaken_for_8_bit(content: bytes, encoding: str) -> str | None:
    """Return a sample of a text that is valid UTF-8, if an 8-bit encoding was requested for it.

    The result is None if nothing is suspicious: the requested encoding is not an 8-bit one, or the
    bytes are plain ASCII or not UTF-8.

    Parameters
    ----------
    content : bytes
        Content of a file.
    encoding : str
        The requested encoding.

    Examples
    --------
    >>> mistaken_for_8_bit("fièvre".encode(), "cp1252")
    'fièvre'
    """
    # In other encodings, most single bytes above 127 are undefined.
    nb_undefined = sum(bytes([b]).decode(encoding, "replace") == "\ufffd" for b in range(128, 256))
    if nb_undefined > 60 or content.isascii() or not _decodes(content, "utf-8"):
        return None
    position = next(position for position, byte in enumerate(content) if byte > 127)
    return _sample(content, "utf-8", position)


def _refusal(content: bytes, encoding: str, path: Path, position: int) -> str:
    byte = f"byte 0x{content[position]:02x} at position {position}" if content else "no text"
    problem = f"{path}: found {byte}, expected text in {encoding}"
    if codecs.lookup(encoding).name.startswith("utf-8") and _is_damaged_utf_8(content):
        sample = _sample(content, "utf-8", position)
        return f"{problem}; most of the file is, so correct it at {sample!r}"
    guess = likely_encoding(content)
    if guess is None:
        return f'{problem}; pass the encoding of the file, as in encoding="cp1252"'
    sample = _sample(content, guess, position)
    return f'{problem}; it looks like {guess}, which reads {sample!r}: pass encoding="{guess}"'


def _sample(content: bytes, encoding: str, position: int) -> str:
    text = content.decode(encoding, "replace")
    middle = len(content[:position].decode(encoding, "replace"))
    return text[max(middle - _AROUND, 0) : middle + _AROUND].strip()


def _decodes(content: bytes, encoding: str) -> bool:
    try:
        content.decode(encoding)
    except UnicodeDecodeError:
        return False
    return True


def _is_8_bit(content: bytes) -> bool:
    """Return whether bytes are not UTF-16, which has zeros at least in line ends and spaces."""
    return bool(content) and 0 not in content and _decodes(content, "utf-8")


def _is_damaged_utf_8(content: bytes) -> bool:
    text = content.decode("utf-8", "replace")
    damaged = text.count("\ufffd")
    good = sum(char > "\x7f" for char in text) - damaged
    return damaged > 0 and good >= 3 * damaged


def _score(text: str) -> int:
    """Return a score of how much the characters beyond ASCII look like Western European text."""
    score = 0
    for before, char in zip(" " + text, text, strict=False):
        if char.isascii() or char in _SIGNS:
            continue
        if before.lower() in _LETTERS:  # several in a row suggest another alphabet
            score -= 2
        elif char in _LETTERS:
            score += 2
        elif char.lower() in _LETTERS:  # a capital rarely follows a small letter
            score += -2 if before.islower() else 1
        else:
            score -= 1
    return score
