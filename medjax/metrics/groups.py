"""Groups of items that depend on each other, such as the texts of a patient."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

__all__ = ["number_groups"]


def number_groups(groups: Sequence[Hashable]) -> list[int]:
    """Return a number for the group of each item, in the order in which groups occur.

    Parameters
    ----------
    groups : sequence of hashable
        The group of each item. An empty string, as a `medjax.text.LabelledText` has without a
        group, is a group of its own each time.

    Raises
    ------
    ValueError
        If one is None, NaN or pandas' NA: items of which it is not known whether they depend on
        each other would make one large group.

    Examples
    --------
    >>> number_groups(["p2", "p1", "", "p2", ""])
    [0, 1, 2, 0, 3]
    """
    known: dict[Hashable, int] = {}
    numbers = []
    for position, group in enumerate(groups):
        if _is_unknown(group):
            msg = (
                f"the group of item {position} is {group!r}; expected what the items of a group "
                "share, such as the id of a patient: fill it in, or give '' to an item that "
                "depends on no other"
            )
            raise ValueError(msg)
        key = (position, group) if group == "" else group
        numbers.append(known.setdefault(key, len(known)))
    return numbers


def _is_unknown(group: Hashable) -> bool:
    try:
        return group is None or bool(group != group)
    except TypeError:  # pandas' NA, of which nothing is equal or unequal
        return True
