"""TrainableComponent: what medjax trains, as a record of functions.

Each slot has a protocol of its own, whose ``__call__`` documents the contract. `init`, `forward`
and `configure_optimizer` are pure functions that medjax traces; the others run on the host. The
record corresponds to medkit's TrainableComponent, except that the weights are arguments and
results instead of attributes.
"""

# Without `from __future__ import annotations`, so that help() shows the types of the slots.

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import jax
import numpy as np
import optax

from medjax.batch import BatchData
from medjax.metrics.mean import Mean
from medjax.runtime.reads import reads, remembers_traces
from medjax.target import trace_anew

Variables = dict[str, Any]
"""Flax variable collections: ``params`` and any others of the model, such as ``batch_stats``."""

__all__ = [
    "Collate",
    "ConfigureOptimizer",
    "Expand",
    "ExpandedData",
    "Forward",
    "Init",
    "Load",
    "Preprocess",
    "Save",
    "TrainableComponent",
    "Variables",
    "count_parameters",
]


def count_parameters(variables: Variables) -> int:
    """Return the number of parameters among variables, or among their shapes.

    Examples
    --------
    >>> count_parameters({"params": {"w": jax.ShapeDtypeStruct((2, 3), "float32")}})
    6
    """
    return sum(leaf.size for leaf in jax.tree.leaves(variables.get("params", {})))


class Init(Protocol):
    """Creates the initial variables; traced by JAX if possible, otherwise called as it is."""

    def __call__(self, key: jax.Array, /) -> Variables:
        """Return the initial variables, as numpy or JAX arrays.

        Parameters
        ----------
        key : jax.Array
            Typed random key, shape (); the same key must give the same variables.
        """
        ...


class Preprocess(Protocol):
    """Turns an item of the dataset into an example; runs on the host, also in worker processes."""

    def __call__(self, item: Any, /) -> dict[str, Any]:
        """Return everything that `collate` needs from an item, including its labels.

        If the function has a parameter ``rng``, it receives in training a `numpy.random.Generator`
        that depends only on the seed, the epoch and the item. Draw random augmentation from it. In
        evaluation it is not given: its default should be None, which leaves the item as it is.
        """
        ...


class Collate(Protocol):
    """Joins examples into a batch; runs on the host."""

    def __call__(self, examples: Sequence[dict[str, Any]], /) -> BatchData:
        """Return a batch with one row for each example.

        numpy columns are moved to the device; other columns (texts, identifiers) stay on the host.
        Pad ragged columns to the longest example; medjax pads them further, to a length of the
        ladder.
        """
        ...


class Forward(Protocol):
    """The forward pass, traced by JAX: no side effects and no Python control flow on values."""

    def __call__(
        self,
        variables: Variables,
        input_batch: BatchData,
        key: jax.Array,
        /,
        *,
        return_loss: bool,
        eval_mode: bool,
    ) -> tuple[BatchData, Mean | None, Variables]:
        """Return the outputs, the loss and the updated collections.

        Parameters
        ----------
        variables : dict
            The collections; ``params`` may have a lower precision than the stored parameters.
        input_batch : BatchData
            The array columns of a batch, padded, with ``row_mask`` (float32, shape (rows,)): 1 for
            a real row, 0 for padding.
        key : jax.Array
            Random key of this batch, for dropout.
        return_loss : bool
            Whether to compute the loss. If False, return None in its place.
        eval_mode : bool
            Whether this is an evaluation: no dropout, and running statistics stay unchanged.

        Returns
        -------
        outputs : BatchData
            One entry per row in each column.
        loss : Mean or None
            Weighted sum of the losses and sum of the weights; padding must have weight zero.
        collections : dict
            New values of the collections other than ``params`` that changed; {} if none did.
        """
        ...


class ConfigureOptimizer(Protocol):
    """Creates the optimizer for a learning rate."""

    def __call__(self, learning_rate: optax.ScalarOrSchedule, /) -> optax.GradientTransformation:
        """Return an optax transformation; it behaves as in a plain optax training loop.

        Parameters
        ----------
        learning_rate : jax.Array
            Learning rate of the update, float32, shape (). It is traced: use it in arithmetic,
            including that of a schedule, but not in Python control flow. The function is called
            each time an update is traced, so a rate passed to `optax.inject_hyperparams` is always
            the current one.

        Returns
        -------
        optax.GradientTransformation
            Its ``update`` may take ``value``, the mean loss of the gradients. Transformations that
            need more (a line search, per-example gradients, two copies of the parameters) are
            refused by name before training.
        """
        ...


class Save(Protocol):
    """Writes the component's own files, for instance a Hugging Face folder."""

    def __call__(self, path: Path, variables: Variables, /) -> None:
        """Write `variables` (numpy arrays on the host) into the existing folder `path`."""
        ...


class Load(Protocol):
    """Reads the component's own files back."""

    def __call__(self, path: Path, /) -> Variables:
        """Return the variables that `save` wrote into the folder `path`."""
        ...


@dataclasses.dataclass(frozen=True)
class ExpandedData:
    """A dataset whose items were made from those of another, one or several from each.

    Attributes
    ----------
    items : sequence
        The new items; `preprocess` receives them one at a time, and each becomes a row of a batch.
    origins : sequence of int
        Position in the user's dataset of the item that each was made from, for error messages.
    notes : sequence of str
        What the user should know about the data before training; each is issued once, as a warning.
    weights : numpy.ndarray, optional
        Weight of each new item, float64, where they are drawn; see `medjax.Sampled`.

    Examples
    --------
    >>> halves = ExpandedData(items=["No fever.", "No cough."], origins=[0, 0])
    >>> len(halves), halves[1]
    (2, 'No cough.')
    >>> halves
    ExpandedData(2 items from 1 of the dataset, 0 notes)
    """

    items: Sequence[Any]
    origins: Sequence[int]
    notes: Sequence[str] = ()
    weights: np.ndarray | None = None

    def __len__(self) -> int:
        """Return the number of items."""
        return len(self.items)

    def __getitem__(self, index: int, /) -> Any:
        """Return the item that `preprocess` receives."""
        return self.items[index]

    def __repr__(self) -> str:
        """Return a summary, as the items may be large."""
        nb_origins = len(set(self.origins))
        return (
            f"{type(self).__name__}({len(self)} items from {nb_origins} of the dataset, "
            f"{len(self.notes)} notes)"
        )


class Expand(Protocol):
    """Turns a dataset into one with an item for each row, such as the windows of long texts."""

    def __call__(self, data: Any, /, *, training: bool) -> ExpandedData:
        """Return the expanded dataset.

        Parameters
        ----------
        data : Dataset
            The user's dataset, with ``__len__`` and ``__getitem__``.
        training : bool
            True if the data is for training, False if it is for evaluation.
        """
        ...


class _ComponentFields(NamedTuple):
    init: Init
    preprocess: Preprocess
    collate: Collate
    forward: Forward
    configure_optimizer: ConfigureOptimizer
    save: Save
    load: Load
    expand: Expand | None = None
    identity: Mapping[str, Any] | None = None
    loss_settings: Mapping[str, Any] | None = None
    reading: Mapping[str, Any] | None = None


class TrainableComponent(_ComponentFields):
    """A model, its data preparation and its optimizer, as a record of functions.

    A component caches the programs that were compiled for it. Training it again with the same
    settings and shapes does not trace it again, unless something that `init`, `forward` or
    `configure_optimizer` reads from outside, such as a global variable, has changed meanwhile. The
    same is asked before each epoch and evaluation of a run.

    Attributes
    ----------
    init : Init
        ``init(key) -> variables``. Creates the initial variables.
    preprocess : Preprocess
        ``preprocess(item) -> example``. Turns an item of the dataset into an example, a dict.
    collate : Collate
        ``collate(examples) -> batch``. Joins examples into a batch.
    forward : Forward
        ``forward(variables, input_batch, key, *, return_loss, eval_mode) -> (outputs, loss,
        collections)``. The forward pass; traced.
    configure_optimizer : ConfigureOptimizer
        ``configure_optimizer(learning_rate) -> optax.GradientTransformation``. Traced.
    save : Save
        ``save(path, variables) -> None``. Writes the component's own files.
    load : Load
        ``load(path) -> variables``. Reads the files that `save` wrote.
    expand : Expand, optional
        ``expand(data, *, training) -> ExpandedData``. Turns a dataset into one with an item for
        each row. By default each item is a row.
    identity : mapping of str to object, optional
        What weights mean that their shapes do not tell, such as the names of the classes in their
        order, by name and ready for JSON. It is stored in checkpoints, and a run resumes none with
        another value.
    loss_settings : mapping of str to object, optional
        What the loss depends on besides the weights, such as weights of classes, by name and ready
        for JSON. A run that resumes with others does so at the end of an epoch, and learns anew
        what an update weighs.
    reading : mapping of str to object, optional
        How items are read, in training and evaluation, by weights that mean the same, such as the
        tokens of a window, by name and ready for JSON. A run that resumes with another value does
        so at the end of an epoch, with a warning, and compares no scores from before and after.

    Examples
    --------
    A line through the origin, fitted to points:

    >>> import numpy as np
    >>> def init(key):
    ...     return {"params": {"slope": np.zeros((), np.float32)}}
    >>> def collate(examples):
    ...     return BatchData({name: np.array([e[name] for e in examples]) for name in ("x", "y")})
    >>> def forward(variables, input_batch, key, *, return_loss, eval_mode):
    ...     predicted = variables["params"]["slope"] * input_batch["x"]
    ...     errors = (predicted - input_batch["y"]) ** 2
    ...     loss = Mean.of(errors, input_batch["row_mask"]) if return_loss else None
    ...     return BatchData(predicted=predicted), loss, {}
    >>> component = TrainableComponent(
    ...     init=init,
    ...     preprocess=dict,
    ...     collate=collate,
    ...     forward=forward,
    ...     configure_optimizer=optax.sgd,
    ...     save=lambda path, variables: np.savez(path / "line.npz", **variables["params"]),
    ...     load=lambda path: {"params": dict(np.load(path / "line.npz"))},
    ... )
    >>> batch = component.collate([{"x": 1.0, "y": 2.0}, {"x": 2.0, "y": 2.0}])
    >>> batch["row_mask"] = np.ones(2, np.float32)
    >>> variables = component.init(jax.random.key(0))
    >>> _, loss, _ = component.forward(variables, batch, None, return_loss=True, eval_mode=True)
    >>> float(loss.compute())
    4.0
    """

    # Without __slots__, so that a record has a __dict__ in which `kept` stores its cache.

    def read_outside(self) -> Any:
        """Return what the component's compiled programs depend on besides their arguments.

        If that has changed, jitted functions within the component are traced again from now on.
        """
        found = reads(self.init, self.forward, self.configure_optimizer)
        # A new component, too, may share jitted functions with one that was trained before.
        if self.__dict__.get("last read") != found:
            self.__dict__["last read"] = found
            if remembers_traces(self.init, self.forward, self.configure_optimizer):
                trace_anew()
        return found

    def kept(self, kind: str, key: Any, make: Callable[[], Any]) -> Any:
        """Return the cached result of `make` for this key, or call it and cache its result.

        The cache is stored in the record itself: it lives as long as the record does.

        Parameters
        ----------
        kind : str
            Name of the cache. Each holds its two most recently used results, as a result may take
            much memory.
        key : object
            What the result depends on besides `read_outside`; compared by equality.
        make : callable
            Called without arguments if the result is not in the cache.
        """
        key = (self.read_outside(), key)
        cache: list[tuple[Any, Any]] = self.__dict__.setdefault(kind, [])
        for position, (cached_key, value) in enumerate(cache):
            if cached_key == key:
                cache.append(cache.pop(position))
                return value
        value = make()
        cache.append((key, value))
        del cache[:-2]
        return value

    def forget(self, kind: str) -> None:
        """Empty a cache of `kept`.

        Parameters
        ----------
        kind : str
            Its name.
        """
        self.__dict__.pop(kind, None)

    def __repr__(self) -> str:
        """Return the names of the functions, as the objects that they belong to may be large."""
        names = (
            f"{field}={getattr(value, '__qualname__', None) or format(repr(value), '.60')}"
            for field, value in zip(self._fields, self, strict=True)
        )
        return f"{type(self).__name__}({', '.join(names)})"

    def __getstate__(self) -> None:
        """Leave the cached programs out of copies and pickles."""
