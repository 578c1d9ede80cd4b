"""Keeps plain values of a component that callbacks and forward set, from one run to the next.

A callback that multiplies a loss weight at each epoch would otherwise begin again in a resumed run,
with the weight that the component was created with.
"""

from __future__ import annotations

import base64
import logging
from collections.abc import Iterable
from typing import Any

import jax
import numpy as np

from medjax.callbacks import TrainerCallback
from medjax_torch.component_state.locations import MISSING, Entry, Inherited, Location
from medjax_torch.component_state.walk import is_of_library
from medjax_torch.component_state.watch import Place, outer_places
from medjax_torch.conversion import ConvertedComponent

logger = logging.getLogger("medjax")

_PLAIN = (bool, int, float, str, type(None))


class KeptValues(TrainerCallback):
    """Saves the values that callbacks and forward set, and restores them in a resumed run.

    These are numbers, strings, bools, NumPy arrays, and lists and tuples of them: of the component,
    whose forward, preprocess or collate may read them, and of globals that forward reads. Modes of
    modules are among them: preprocess may read the mode before forward sets it. It comes after the
    user's callbacks, so that it sees what they do when training begins.

    Parameters
    ----------
    converted : ConvertedComponent
        The component that is trained.
    """

    def __init__(self, converted: ConvertedComponent) -> None:
        self._converted = converted
        self._began: dict[str, Any] = {}
        self._saved: dict[str, Any] = {}
        self._set: list[tuple[Location, Any]] = []
        self._moved = set[str]()  # paths of modes that forward or callbacks have set
        self._is_within_epoch = False

    def on_train_begin(self, config: Any) -> None:
        """Remember the current values, then set those of the run that is resumed."""
        del config
        self._set.clear()
        locations = self._locations()
        self._began = {path: _encoded(location.get()) for path, location in locations.items()}
        for path, (before, after) in self._saved.items():
            if path not in locations:
                _say(f"{path} was {_decoded(after)!r}, but the component no longer has this value")
            elif self._began[path] == before or path in self._moved:
                self._set.append((locations[path], after))
            elif self._began[path] != after:
                _say(
                    f"{path} was {_decoded(before)!r} when training began and {_decoded(after)!r} "
                    f"when it was saved; it is {_decoded(self._began[path])!r} now, which is used"
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
            if _is_mode(path) and _encoded(location.get()) != self._began.get(path)
        }

    def _set_values(self) -> None:
        for location, value in self._set:
            _put(location, _decoded(value))

    def state_dict(self) -> dict[str, Any]:
        """Return the first and the latest value, by path, of values that have changed."""
        changed = {}
        locations = self._locations()
        self._note_modes(locations)
        for path, location in locations.items():
            before, latest = self._began.get(path, MISSING), _encoded(location.get())
            if before is not MISSING and (before != latest or path in self._moved):
                changed[path] = [before, latest]
        return changed

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Store what `state_dict` returned; the values are set when training begins."""
        self._saved = state
        self._moved = set(filter(_is_mode, state))

    def _outer(self) -> Iterable[Place]:
        functions = [self._converted.component.forward]
        return outer_places(functions, self._converted.inventory.content)

    def _locations(self) -> dict[str, Location]:
        """Return the locations of the component's plain values, and of globals that it may read."""
        locations: dict[str, Location] = {}
        for path, holder in self._converted.inventory.content.objects:
            prefix = f"{path}." if path else ""
            _add(locations, prefix, getattr(holder, "__dict__", {}), depth=0)
            _add_defaults(locations, prefix, holder)
        for place in self._outer():
            if _is_plain(place.location.get()):
                locations.setdefault(place.path, place.location)
        return locations


_DEEPEST = 4
"""Number of nested dicts that are searched."""


def _add(
    locations: dict[str, Location], prefix: str, entries: dict[Any, Any], *, depth: int
) -> None:
    for key, value in list(dict.items(entries)):
        if not isinstance(key, str) or key.startswith("__"):
            continue
        if _is_plain(value):
            locations.setdefault(prefix + key, Entry(entries, key))
        elif isinstance(value, dict) and depth < _DEEPEST and not key.startswith("_"):
            _add(locations, f"{prefix}{key}.", value, depth=depth + 1)


def _add_defaults(locations: dict[str, Location], prefix: str, holder: Any) -> None:
    """Add the plain values that an object has from its class."""
    if not hasattr(holder, "__dict__"):
        return
    for kind in type(holder).__mro__:
        for name, value in () if is_of_library(kind.__module__) else list(vars(kind).items()):
            if _is_plain(value) and not name.startswith("__"):
                locations.setdefault(prefix + name, Inherited(holder, name))


def _is_mode(path: str) -> bool:
    return path.rpartition(".")[2] == "training"


_MOST = 10_000
"""Elements of the longest list or array that is kept."""


def _is_plain(value: Any) -> bool:
    if type(value) is np.ndarray or isinstance(value, np.generic):
        return value.size <= _MOST and value.dtype.kind in "biufc"
    if type(value) in (list, tuple):
        return len(value) <= _MOST and all(map(_is_plain, value))
    return type(value) in _PLAIN


def _encoded(value: Any) -> Any:
    """Return a value in a JSON form that is exact bit for bit and tells the types apart."""
    if isinstance(value, np.ndarray | np.generic):
        content = base64.b64encode(value.tobytes()).decode()
        shape = list(value.shape) if isinstance(value, np.ndarray) else None
        return {"dtype": value.dtype.str, "shape": shape, "bytes": content}
    if isinstance(value, list | tuple):
        return {type(value).__name__: [_encoded(each) for each in value]}
    return {"float": value.hex()} if isinstance(value, float) else value


def _decoded(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    if "float" in value:
        return float.fromhex(value["float"])
    if "bytes" in value:
        content = base64.b64decode(value["bytes"])
        array = np.frombuffer(content, np.dtype(value["dtype"]))
        return array[0] if value["shape"] is None else array.reshape(value["shape"]).copy()
    ((kind, values),) = value.items()
    return {"list": list, "tuple": tuple}[kind](map(_decoded, values))


def _put(location: Location, value: Any) -> None:
    """Set a value; a list or array keeps its identity, as others may refer to it."""
    present = location.get()
    if type(present) is list and type(value) is list:
        present[:] = value
    elif _is_alike(present, value):
        present[...] = value
    else:
        location.set(value)


def _is_alike(present: Any, value: Any) -> bool:
    return (
        isinstance(present, np.ndarray)
        and isinstance(value, np.ndarray)
        and (present.shape, present.dtype) == (value.shape, value.dtype)
        and present.flags.writeable
    )


def _say(text: str) -> None:
    if jax.process_index() == 0:
        logger.warning("Resuming: %s", text)
