"""Texts with labels as data for a classifier: checked, split into windows, numbered."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from medjax.components.windows import split_windows
from medjax.models.tokenizer import Encoding
from medjax.text.document import label_form

__all__ = ["NumberedText", "NumberedTexts", "check_texts", "label_of", "target_of", "windowed"]


class NumberedText(NamedTuple):
    """A text of a dataset, the item that `TextClassification.preprocess` takes.

    Attributes
    ----------
    document : int
        Its position in the dataset.
    text : LabelledText
        The text.
    """

    document: int
    text: Any


class NumberedTexts(Sequence[NumberedText]):
    """The texts of a dataset with their positions, read from it one at a time.

    Parameters
    ----------
    texts : Dataset
        The dataset.
    """

    def __init__(self, texts: Any) -> None:
        self._texts = texts

    def __len__(self) -> int:
        """Return the number of texts."""
        return len(self._texts)

    def __getitem__(self, position: Any) -> Any:
        """Return the text at a position."""
        return NumberedText(position, self._texts[position])


def check_texts(texts: Any, labels: Sequence[str], *, multi_label: bool) -> None:
    """Raise ValueError unless all items are texts with known labels.

    Parameters
    ----------
    texts : Dataset
        Objects with the attributes ``text`` and ``labels``.
    labels : sequence of str
        Names of the classes.
    multi_label : bool
        Whether a text may have any number of labels, instead of one.
    """
    for position in range(len(texts)):
        item = texts[position]
        found = getattr(item, "labels", None)
        if not isinstance(getattr(item, "text", None), str) or not isinstance(found, list | tuple):
            msg = (
                f"item {position} is {item!r:.80}; expected a medjax.text.LabelledText, or another "
                "object with the attributes text, a string, and labels, a tuple of strings"
            )
            raise ValueError(msg)
        target_of(item, labels)
        if not multi_label:
            label_of(item, labels)


def label_of(item: Any, labels: Sequence[str]) -> int:
    """Return the number of the only class of a text.

    Raises
    ------
    ValueError
        If it has no class, several, or an unknown one.
    """
    if len(item.labels) != 1:
        msg = (
            f"{_name_of(item)} has the labels {list(item.labels)}; expected exactly one, or "
            "problem_type='multi_label_classification' where texts may have any number"
        )
        raise ValueError(msg)
    return target_of(item, labels).index(1)


def target_of(item: Any, labels: Sequence[str]) -> list[int]:
    """Return a 0 or 1 for each class.

    Raises
    ------
    ValueError
        If a label of the text is unknown.
    """
    if unknown := [label for label in item.labels if label not in labels]:
        label = unknown[0]
        msg = f"{_name_of(item)} has the label {label!r}; expected one of {list(labels)}"
        if alike := [each for each in labels if label_form(each) == label_form(label)]:
            msg += (
                f". The class {alike[0]!a} looks like {label!a}, but its white space or the "
                "encoding of its accents differs: train the model again, or give items with its "
                "own name"
            )
        raise ValueError(msg)
    return [int(label in item.labels) for label in labels]


def _name_of(item: Any) -> str:
    return f"the text {getattr(item, 'name', '') or item.text[:40]!r}"


def windowed(encoding: Encoding, max_length: int) -> list[int]:
    """Return the token ids of all windows of a text, one after the other.

    Parameters
    ----------
    encoding : Encoding
        Tokens of the text, not truncated.
    max_length : int
        Tokens of each window but the last, special tokens included.
    """
    windows = split_windows(encoding, (), max_length)
    return [token for window in windows for token in window.ids]
