"""Texts with the entities that a model got right, missed or made up, as HTML."""

from __future__ import annotations

import html
import itertools
from collections.abc import Sequence
from typing import NamedTuple

from medjax.text import Entity

__all__ = ["ErrorExample", "has_error", "highlighted"]

_Span = tuple[str, int, int]


class ErrorExample(NamedTuple):
    """A text on which a model was wrong, or may have been.

    Attributes
    ----------
    text : str
        The text.
    true, predicted : sequence of Entity
        The annotated and the predicted entities.
    caption : str
        What is said above the text, such as the true and the predicted class.
    is_wrong : bool, optional
        Whether the model was wrong; by default, whether true and predicted entities differ.

    Examples
    --------
    >>> ErrorExample("No fever", true=[Entity("Sign", 3, 8)]).predicted
    ()
    """

    text: str
    true: Sequence[Entity] = ()
    predicted: Sequence[Entity] = ()
    caption: str = ""
    is_wrong: bool | None = None


def has_error(example: ErrorExample) -> bool:
    """Return whether the model was wrong on a text; the scores of entities do not matter.

    Examples
    --------
    >>> fever = Entity("Sign", 3, 8)
    >>> has_error(ErrorExample("No fever", [fever], [fever._replace(score=0.9)]))
    False
    """
    if example.is_wrong is not None:
        return example.is_wrong
    return {entity[:3] for entity in example.true} != {entity[:3] for entity in example.predicted}


def highlighted(example: ErrorExample) -> str:
    """Return the text as HTML, with marks that say what is right, missed and spurious.

    Raises
    ------
    ValueError
        If an entity does not lie within the text.

    Examples
    --------
    >>> highlighted(ErrorExample("<b> fever", true=[Entity("Sign", 4, 9)]))
    '&lt;b&gt; <mark class="missed">fever<small>Sign missed</small></mark>'
    """
    text = example.text
    spans = _spans(example)
    for label, start, end in spans:
        if not 0 <= start < end <= len(text):
            msg = (
                f"the entity {label!r} from {start} to {end} is not within its text of "
                f"{len(text)} characters; expected offsets into this very text"
            )
            raise ValueError(msg)
    bounds = sorted({0, len(text), *(place for _, *both in spans for place in both)})
    parts = []
    for start, end in itertools.pairwise(bounds):
        inside = [span for span in spans if span[1] <= start and end <= span[2]]
        part = html.escape(text[start:end])
        if inside:
            kinds = " ".join(sorted({spans[span] for span in inside}))
            notes = "".join(_note(span, spans[span]) for span in inside if span[2] == end)
            part = f'<mark class="{kinds}">{part}{notes}</mark>'
        parts.append(part)
    return "".join(parts)


def _spans(example: ErrorExample) -> dict[_Span, str]:
    """Return what each entity is: right, missed or spurious."""
    true = [entity[:3] for entity in example.true]
    predicted = [entity[:3] for entity in example.predicted]
    kinds = {span: "right" if span in predicted else "missed" for span in true}
    return kinds | {span: "spurious" for span in predicted if span not in kinds}


def _note(span: _Span, kind: str) -> str:
    said = span[0] if kind == "right" else f"{span[0]} {kind}"
    return f"<small>{html.escape(said)}</small>"
