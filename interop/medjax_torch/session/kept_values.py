"""Keeps plain values of a component that callbacks and forward set, from one run to the next.

A callback that multiplies a loss weight at each epoch would otherwise begin again in a resumed run,
with the weight that the component was created with.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax

from medjax.callbacks import TrainerCallback
from medjax_torch.component_state.locations import Location
from medjax_torch.component_state.watch import Place, outer_places
from medjax_torch.conversion import ConvertedComponent
from medjax_torch.session.kept_data import DataValues
from medjax_torch.session.plain_values import (
    add,
    add_defaults,
    decoded,
    encoded,
    is_plain,
    put_value,
)

logger = logging.getLogger("medjax")


class KeptValues(TrainerCallback):
    """Saves the values that callbacks and forward set, and restores them in a resumed run.

    These are numbers, strings, bools, NumPy arrays, and lists and tuples of them: of the component,
    whose forward, preprocess or collate may read them, and of globals that forward reads. Modes of
    modules are among them: preprocess may read the mode before forward sets it. It comes after the
    user's callbacks, so that it sees what they do when training begins.

    Numbers, strings and bools of datasets are kept as well (see `DataValues`).

    Parameters
    ----------
    converted : ConvertedComponent
        The component that is trained.
    data : mapping of str to dataset
        The datasets by name.
    """

    def __init__(self, converted: ConvertedComponent, data: Mapping[str, Any]) -> None:
        self._converted = converted
        self._data = DataValues(data, lambda: converted.inventory.content, converted.component)
        self._began: dict[str, Any] = {}
        self._saved: dict[str, Any] = {}
        self._set: dict[str, tuple[Location, Any]] = {}
        self._moved = set[str]()  # paths of modes that forward or callbacks have set
        self._is_within_epoch = False

    def on_train_begin(self, config: Any) -> None:
        """Remember the current values, then set those of the run that is resumed."""
        del config
        self._set.clear()
        self._data.begin()
        locations = self._locations()
        self._began = {path: encoded(location.get()) for path, location in locations.items()}
        lost = [path for path, values in self._saved.items() if len(values) == 1]
        saved = {path: values for path, values in self._saved.items() if len(values) == 2}
        if lost:
            _say(
                f"{', '.join(lost)} changed in training, which a checkpoint does not hold; it "
                "begins again as it is now. Set it in a callback's on_resume, or keep what counts "
                "in attributes of the component"
            )
        for path, (before, after) in saved.items():
            if path not in locations:
                _say(
                    f"{path} was {decoded(after)!r}, but component and data no longer have this "
                    "value"
                )
            elif self._began[path] == before or path in self._moved:
                self._set[path] = locations[path], after
            elif self._began[path] != after:
                _say(
                    f"{path} was {decoded(before)!r} when training began and {decoded(after)!r} "
                    f"when it was saved; it is {decoded(self._began[path])!r} now, which is used"
                )
        self._set_values()

    def on_resume(
        self, checkpoint_dir: str, epoch: int, step_idx: int, nb_batches: int, nb_epochs: int
    ) -> None:
        """Record whether the run is resumed within an epoch."""
        del checkpoint_dir, epoch, nb_batches, nb_epochs
        self._is_within_epoch = step_idx > 0

    def on_epoch_begin(self, epoch: int) -> None:
        """Undo what callbacks do to the values when a resumed epoch begins for the second time."""
        del epoch
        if self._is_within_epoch:
            self._set_values()
        self._is_within_epoch = False

    def on_epoch_end(self, metrics: Any, epoch: int, epoch_duration: float) -> None:
        """Note which modes have moved by now, if only to return at the next save."""
        del metrics, epoch, epoch_duration
        self._note_modes(self._locations())

    def _note_modes(self, locations: dict[str, Location]) -> None:
        self._moved |= {
            path
            for path, location in locations.items()
            if _is_mode(path) and encoded(location.get()) != self._began.get(path)
        }

    def _set_values(self) -> None:
        for location, value in self._set.values():
            put_value(location, decoded(value))

    def rewound(self) -> Callable[[], None]:
        """Return what sets the current values, for when batches have been read again.

        Of the data, only what the checkpoint has is set: the rest has to fit the position.
        """
        of_data = self._data.locations()
        now = {
            path: (location, encoded(location.get()))
            for path, location in self._locations().items()
            if path not in of_data or path in self._set
        }

        def set_all() -> None:
            for location, value in now.values():
                if encoded(location.get()) != value:
                    put_value(location, decoded(value))

        return set_all

    def state_dict(self) -> dict[str, Any]:
        """Return the first and the latest value, by path, of values that have changed.

        Of what has changed and cannot be restored, only the name is told, with an empty value.
        """
        locations = self._locations()
        self._note_modes(locations)
        now = {path: encoded(location.get()) for path, location in locations.items()}
        changed = {
            path: [self._began[path], latest]
            for path, latest in now.items()
            if path in self._began and (self._began[path] != latest or path in self._moved)
        }
        others = self._data.others()
        if others is not None:
            lost = [path for path in changed if path in self._data.locations()]
            changed |= {path: [None] for path in (*lost, *others)}
        return changed

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Store what `state_dict` returned; the values are set when training begins."""
        self._saved = state
        self._moved = set(filter(_is_mode, state))

    def _outer(self) -> Iterable[Place]:
        functions = [self._converted.component.forward]
        return outer_places(functions, self._converted.inventory.content)

    def _locations(self) -> dict[str, Location]:
        """Return the locations of plain values of the component, the data, and globals."""
        locations: dict[str, Location] = {}
        for path, holder in self._converted.inventory.content.objects:
            prefix = f"{path}." if path else ""
            add(locations, prefix, getattr(holder, "__dict__", {}), depth=0)
            add_defaults(locations, prefix, holder)
        for place in self._outer():
            if is_plain(place.location.get()):
                locations.setdefault(place.path, place.location)
        return self._data.locations() | locations


def _is_mode(path: str) -> bool:
    return path.rpartition(".")[2] == "training"


def _say(text: str) -> None:
    if jax.process_index() == 0:
        logger.warning("Resuming: %s", text)
