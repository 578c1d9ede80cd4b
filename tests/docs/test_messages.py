"""The pages on errors: every message that they quote is one that the sources still have."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = sorted((ROOT / "docs" / "when-it-fails").glob("*.md"))
VARIES = "…"
_QUOTED = re.compile(r"^`([^`]+)`\n: ", re.MULTILINE)


def quoted(page):
    """Return the messages of a page: terms in backticks, each followed by its explanation."""
    return _QUOTED.findall(page.read_text(encoding="utf-8"))


def text_of(node):
    """Return a string of the sources, with what varies replaced; None if it is none."""
    match node:
        case ast.Constant(value=str(text)):
            return text
        case ast.JoinedStr(values=parts):
            return "".join(text_of(part) or VARIES for part in parts)
        case ast.BinOp(left=left, op=ast.Add(), right=right):
            sides = (text_of(left), text_of(right))
            return None if sides == (None, None) else "".join(side or VARIES for side in sides)
    return None


@pytest.fixture(scope="module")
def messages():
    sources = [*(ROOT / "medjax").rglob("*.py"), *(ROOT / "interop").rglob("*.py")]
    texts = (
        text_of(node)
        for source in sources
        for node in ast.walk(ast.parse(source.read_text(encoding="utf-8")))
    )
    return [text for text in texts if text]


def occurs(message, text):
    """Tell whether the parts of a message stand in a text in this order, with anything between."""
    position = 0
    for part in filter(None, (part.strip() for part in message.split(VARIES))):
        found = text.find(part, position)
        if found < 0:
            return False
        position = found + len(part)
    return True


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_message_is_in_the_sources(page, messages):
    assert quoted(page)
    gone = [said for said in quoted(page) if not any(occurs(said, text) for text in messages)]
    assert gone == []


def test_a_message_that_was_reworded_is_noticed(messages):
    said = "the loss or a gradient is not finite in epoch …"
    assert any(occurs(said, text) for text in messages)
    assert not any(occurs(said.replace("finite", "bounded"), text) for text in messages)


def test_every_explanation_has_its_message():
    for page in PAGES:
        explanations = re.findall(r"^: ", page.read_text(encoding="utf-8"), re.MULTILINE)
        assert len(explanations) == len(quoted(page)), page
