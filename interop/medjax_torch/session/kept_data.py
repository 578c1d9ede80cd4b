"""Numbers, strings and bools of datasets, which a resumed run goes on from where that is safe."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from medjax_torch.component_state.locations import MISSING, Effect, Location, Snapshot
from medjax_torch.component_state.putting_back import has_open_file, is_large
from medjax_torch.component_state.walk import GENERATORS, Walk, walk_shallow
from medjax_torch.component_state.watch.places import token
from medjax_torch.session.plain_values import add, add_defaults

_SCALARS = (bool, int, float, str)


class DataValues:
    """The numbers, strings and bools of datasets and of objects in them.

    They can only be restored if nothing else has changed in the data. Otherwise they may describe
    what a checkpoint does not hold, as a flag does that says that rows have been loaded.

    Parameters
    ----------
    data : mapping of str to dataset
        The datasets by name.
    known : callable
        Returns what is part of the component.
    component : object
        The component, whose package is the user's.
    """

    def __init__(
        self, data: Mapping[str, Any], known: Callable[[], Walk], component: object
    ) -> None:
        self._data = data
        self._known = known
        users = (component, *data.values())
        self._own = {type(each).__module__.partition(".")[0] for each in users}
        self._snapshots: list[Snapshot] = []

    def begin(self) -> None:
        """Remember what there is when training begins."""
        self._snapshots = [
            Snapshot(path, holder)
            for path, holder in self._content().holders
            if not is_large(holder)
        ]

    def locations(self) -> dict[str, Location]:
        """Return the locations of the values."""
        locations: dict[str, Location] = {}
        for path, holder in self._content().objects:
            add(locations, f"{path}.", getattr(holder, "__dict__", {}), depth=0)
            add_defaults(locations, f"{path}.", holder)
        return {path: each for path, each in locations.items() if _is_scalar(each.get())}

    def others(self) -> list[str] | None:
        """Return what else has changed, without what was first filled in; None if nothing has."""
        kept = self.locations()
        own = {id(getattr(holder, "__dict__", None)) for _, holder in self._content().objects}
        changed = list(self._changes(kept, own))
        if not changed and not any(has_open_file(each.holder) for each in self._snapshots):
            return None
        return [
            change.path
            for change, is_attribute in changed
            if not (is_attribute and _is_empty(change.before))
        ]

    def _changes(
        self, kept: Mapping[str, Location], own: set[int]
    ) -> Iterator[tuple[Effect, bool]]:
        """Yield other changes, and whether each is of an attribute."""
        for snapshot in self._snapshots:
            is_attribute = id(snapshot.holder) in own
            for change in snapshot.changes():
                before, after = change.before, change.after
                is_filled = is_attribute and _is_empty(before) and _is_scalar(after)
                is_kept = change.path in kept and not _is_empty(before)
                is_same = token(before) == token(after) or isinstance(after, GENERATORS)
                if not (is_filled or is_kept or is_same):
                    yield change, is_attribute

    def _content(self) -> Walk:
        return walk_shallow(self._data.items(), self._known(), self._own)


def _is_scalar(value: Any) -> bool:
    return type(value) in _SCALARS or isinstance(value, np.generic)


def _is_empty(value: Any) -> bool:
    return value is None or value is MISSING
