"""What the folds of a cross-validation depend on, told in the same words by every process."""

from __future__ import annotations

import contextlib
import dataclasses
import enum
import hashlib
import itertools
import json
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from medjax import sharding
from medjax.component import TrainableComponent, Variables
from medjax.config import Options, TrainerConfig
from medjax.data import Dataset
from medjax.data.sampling import Sampled
from medjax.metrics import MetricsComputer
from medjax.schedules import Schedule

__all__ = ["differences", "digest", "identity_of_fold", "settings_of_folds"]

_NAMES = {
    "items": "the numbers of items",
    "contents": "the contents of items",
    "weights": "the weights of items",
    "rows": "the numbers of rows that items are expanded to",
    "variables": "the initial variables",
    "schedule": "the rates of the schedule",
    "metrics": "class or parameters of the metrics computer",
}
"""How settings are called where their values say nothing."""

_MOST_TOLD = 6
"""Settings that differ, of which an error tells."""

_NB_RATES = 50
"""Updates, over a run, whose rates tell a schedule from others."""

_NB_READ_TWICE = 3
"""Items that are read twice, to see whether reading is random."""


def settings_of_folds(
    component: TrainableComponent,
    config: TrainerConfig,
    options: Options,
    data: Dataset,
    metrics: MetricsComputer,
    schedule: Schedule,
) -> dict[str, Any]:
    """Record what the folds depend on, ready for JSON and the same in every process.

    Code is not recorded: of functions, only the initial variables and the rates that they return.

    Parameters
    ----------
    component : TrainableComponent
        Its `init` is called with a key of its own, and `expand` with the data. Its `identity`,
        `loss_settings` and `reading` count.
    config, options
        How it is trained.
    data : Dataset
        All items. They are read once; see `_digest_of_items` for what counts.
    metrics : MetricsComputer
        Its class counts, and the public attributes that `digest` takes.
    schedule : Schedule
        Its mode and some of its rates count.
    """
    traced = dataclasses.replace(options, log_dir=None)
    with _on_host():
        variables = component.init(jax.random.key(0))
        rates = _rates(schedule, config, len(data))
    named = {
        name: getattr(component, name) or {} for name in ("identity", "loss_settings", "reading")
    }
    return {
        "items": len(data),
        "contents": _digest_of_items(data),
        "weights": digest(data.weights) if isinstance(data, Sampled) else None,
        "rows": _number_of_rows(component, data),
        "variables": _digest_of_variables(variables),
        "component": json.loads(json.dumps(named, default=str)),
        "schedule": [schedule.mode, *rates],
        "metrics": [type(metrics).__name__, _attributes(metrics)],
        "config": config.to_dict(),
        "options": {name: str(value) for name, value in dataclasses.asdict(traced).items()},
    }


def digest(value: Any) -> str:
    """Return a digest of plain values, arrays, and mappings, sequences and records of them.

    Raises
    ------
    TypeError
        If there is another object in `value`, whose contents cannot be told in the same words by
        another process.

    Examples
    --------
    >>> digest({"text": "no fever", "label": 0}) == digest({"label": 0, "text": "no fever"})
    True
    >>> digest([1]) == digest([1.0])
    False
    """
    return hashlib.sha256(_described(value)).hexdigest()


def identity_of_fold(settings: Mapping[str, Any], held_out: Sequence[int]) -> str:
    """Return what tells a fold from others, as text.

    Parameters
    ----------
    settings : mapping
        From `settings_of_folds`.
    held_out : sequence of int
        Positions of the items that it holds out.
    """
    return json.dumps([settings, [*held_out]], sort_keys=True)


def differences(stored: str, current: str) -> str:
    """Say in what two results of `identity_of_fold` differ.

    Examples
    --------
    >>> one = identity_of_fold({"config": {"seed": 1}, "variables": "x"}, [3, 4])
    >>> differences(one, identity_of_fold({"config": {"seed": 2}, "variables": "y"}, [3, 4]))
    'config.seed was 1 and is 2, the initial variables differ'
    """
    try:
        (before, held_before), (now, held_now) = json.loads(stored), json.loads(current)
        told = _changes("", before, now)
    except (TypeError, ValueError, AttributeError):
        return "of an older version, or changed by hand"
    if held_before != held_now and before.get("items") == now.get("items"):
        told.append("other items are held out, by nb_folds, strata, groups or the seed")
    rest = len(told) - _MOST_TOLD
    more = [f"and {rest} more"] if rest > 0 else []
    return ", ".join(told[:_MOST_TOLD] + more)


def _changes(path: str, before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    told = []
    for name in dict.fromkeys([*now, *before]):
        was, value = before.get(name), now.get(name)
        if isinstance(was, dict) and isinstance(value, dict):
            told += _changes(f"{path}{name}.", was, value)
        elif name not in before and not path:
            told.append(f"{_NAMES.get(name, name)}: not recorded by an older version")
        elif was != value and name in _NAMES and not path:
            told.append(f"{_NAMES[name]} differ")
        elif was != value:
            told.append(f"{path}{name} was {was!r:.80} and is {value!r:.80}")
    return told


def _described(value: Any) -> bytes:
    """Return bytes that are the same for equal values, and others for different ones."""
    if isinstance(value, enum.Enum):
        return _joined("enum", [type(value).__name__.encode(), value.name.encode()])
    if type(value) is str:
        return _joined("str", [value.encode("utf-8", "surrogatepass")])
    if value is None or type(value) in (bool, int, float, complex, bytes):
        return _joined(type(value).__name__, [repr(value).encode()])
    if isinstance(value, np.ndarray | np.generic | jax.Array):
        return _described_array(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
        return _joined(type(value).__name__, [_described(fields)])
    if isinstance(value, Mapping):
        pairs = [_described(key) + _described(item) for key, item in value.items()]
        return _joined("mapping", sorted(pairs))
    if isinstance(value, list | tuple):  # records of NamedTuple by their name
        return _joined(type(value).__name__, [_described(item) for item in value])
    if isinstance(value, set | frozenset):
        return _joined("set", sorted(_described(item) for item in value))
    msg = f"{type(value).__name__} found; expected plain values, arrays, and containers of them"
    raise TypeError(msg)


def _described_array(array: Any) -> bytes:
    if isinstance(array, jax.Array) and jnp.issubdtype(array.dtype, jax.dtypes.prng_key):
        array = jax.random.key_data(array)
    values = np.asarray(array)
    if values.dtype.hasobject:
        return _joined("objects", [_described(values.tolist())])
    content = hashlib.sha256(np.ascontiguousarray(values).tobytes()).digest()
    return _joined("array", [f"{values.dtype} {values.shape}".encode(), content])


def _joined(kind: str, parts: list[bytes]) -> bytes:
    """Return one digest of parts, so that what is described deep inside stays short."""
    total = hashlib.sha256(f"{kind} {len(parts)} ".encode())
    for part in parts:
        total.update(f"{len(part)} ".encode() + part)
    return total.digest()


def _number_of_rows(component: TrainableComponent, data: Dataset) -> int | None:
    """Return the number of rows for training, which tells how negatives are drawn, for instance."""
    if component.expand is None:
        return None
    try:
        return len(component.expand(data, training=True))
    except Exception:  # training names what is wrong with the data
        return None


def _digest_of_items(data: Dataset) -> str | None:
    """Return a digest of the items, or None if reading them is random.

    An item that `digest` does not take, or that cannot be read, counts by its position only.
    """
    first = range(min(_NB_READ_TWICE, len(data)))
    if any(_described_item(data, number) != _described_item(data, number) for number in first):
        return None
    return digest([_described_item(data, number) for number in range(len(data))])


def _described_item(data: Dataset, number: int) -> bytes:
    try:
        return _described(data[number])
    except Exception:  # training names an item that cannot be read
        return b""


def _digest_of_variables(variables: Variables) -> str:
    leaves = jax.tree_util.tree_leaves_with_path(dict(variables))
    return digest([(jax.tree_util.keystr(path), leaf) for path, leaf in leaves])


def _attributes(metrics: MetricsComputer) -> dict[str, str]:
    described = {}
    for name, value in getattr(metrics, "__dict__", {}).items():
        if not name.startswith("_"):
            with contextlib.suppress(TypeError):
                described[name] = digest(value)
    return described


def _rates(schedule: Schedule, config: TrainerConfig, nb_items: int) -> list[str]:
    """Return rates of a schedule over a run on all items, rounded, as machines differ."""
    state = schedule.init(config.learning_rate)
    set_by_host = [state["learning_rate"]]
    for epoch in range(1, 1 if schedule.needs_metric else config.nb_training_epochs):
        state = schedule.update(state, epoch, None)
        set_by_host.append(state["learning_rate"])
    per_epoch = -(-nb_items // (config.batch_size * config.gradient_accumulation_steps))
    spread = np.linspace(0, per_epoch * config.nb_training_epochs, _NB_RATES).astype(int)
    rate = jnp.float32(set_by_host[0])
    by_step = [schedule.rate(jnp.int32(step), rate) for step in sorted({0, 1, 2, *spread.tolist()})]
    return [f"{float(value):.4g}" for value in itertools.chain(set_by_host, by_step)]


def _on_host() -> contextlib.AbstractContextManager[Any]:
    """Compute on the host's CPU, whose numbers do not depend on the accelerator."""
    host = sharding.host_mesh()
    return contextlib.nullcontext() if host is None else jax.default_device(host.devices.flat[0])
