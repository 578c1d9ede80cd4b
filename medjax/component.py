"""TrainableComponent: what medjax trains, as a record of functions.

Each slot has a protocol of its own that carries its contract. `init`, `forward` and
`configure_optimizer` are pure; the others run on the host. It is medkit's TrainableComponent with
the weights handed in and out instead of held.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import jax
import optax

from medjax.batch import BatchData
from medjax.metrics.mean import Mean
from medjax.reads import reads

Variables = dict[str, Any]
"""Flax variable collections: ``params`` and what else the model keeps, e.g. ``batch_stats``."""


class Init(Protocol):
    """Makes the variables to start from."""

    def __call__(self, key: jax.Array, /) -> Variables:
        """Return the variables, as numpy or JAX arrays.

        Parameters
        ----------
        key : jax.Array
            Typed random key, shape (); the same key must give the same variables.
        """
        ...


class Preprocess(Protocol):
    """Turns an item of the dataset into an example; runs on the host, also in worker processes."""

    def __call__(self, item: Any, /) -> dict[str, Any]:
        """Return everything `collate` needs of an item, the labels included.

        A function with a parameter ``rng`` also gets ``rng=``, a `numpy.random.Generator` that
        depends on seed, epoch and item alone: the place to draw augmentation from.
        """
        ...


class Collate(Protocol):
    """Joins examples to a batch; runs on the host."""

    def __call__(self, examples: Sequence[dict[str, Any]], /) -> BatchData:
        """Return a batch with one row for each example.

        numpy columns go to the device; other columns (texts, identifiers) stay on the host.
        Ragged columns are padded to the longest example here and to the length ladder later.
        """
        ...


class Forward(Protocol):
    """The forward pass, traced by JAX: no side effect, no look at values."""

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
        """Return outputs, loss and the changed collections.

        Parameters
        ----------
        variables : dict
            The collections; ``params`` may be of a lower precision than the stored ones.
        input_batch : BatchData
            The array columns of a batch, padded, with ``row_mask`` (float32, shape (rows,)): 1 for
            a real row, 0 for padding.
        key : jax.Array
            Random key of this batch, for dropout.
        return_loss : bool
            Whether the loss is wanted; without it, None is returned in its place.
        eval_mode : bool
            Whether this is evaluation: no dropout, statistics unchanged.

        Returns
        -------
        outputs : BatchData
            One entry per row in each column.
        loss : Mean or None
            Sum and weight of the loss; padding must weigh zero.
        collections : dict
            New values of the collections other than ``params`` that changed; {} for none.
        """
        ...


class ConfigureOptimizer(Protocol):
    """Makes the optimizer for a learning rate."""

    def __call__(self, learning_rate: optax.ScalarOrSchedule, /) -> optax.GradientTransformation:
        """Return an optax transformation, which trains as it would in a plain loop of optax.

        Parameters
        ----------
        learning_rate : jax.Array
            The rate of an update, float32, shape (), traced: it may be used in arithmetic, also
            for a schedule, but has no value to look at. The function is called whenever an update
            is traced, so what `optax.inject_hyperparams` makes of the rate follows it.

        Returns
        -------
        optax.GradientTransformation
            Its ``update`` may take ``value``, the mean loss that the gradients are of. What needs
            more (a line search, the gradient of every row, two copies of the parameters) is
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
    """A dataset in which an item of the user's dataset may stand for several.

    Attributes
    ----------
    items : sequence
        What `preprocess` gets, one for each row of a batch.
    origins : sequence of int
        For each of them its position in the user's dataset, for messages.
    notes : sequence of str
        What the user should know about the data before training; said once, as warnings.
    """

    items: Sequence[Any]
    origins: Sequence[int]
    notes: Sequence[str] = ()

    def __len__(self) -> int:
        """Return the number of items."""
        return len(self.items)

    def __getitem__(self, index: int, /) -> Any:
        """Return what `preprocess` gets."""
        return self.items[index]


class Expand(Protocol):
    """Turns a dataset into one with an item for each row, such as the windows of long texts."""

    def __call__(self, data: Any, /, *, training: bool) -> ExpandedData:
        """Return the expanded dataset.

        Parameters
        ----------
        data : Dataset
            The data, with ``__len__`` and ``__getitem__``.
        training : bool
            Whether it is trained on, and not evaluated on.
        """
        ...


class _Slots(NamedTuple):
    init: Init
    preprocess: Preprocess
    collate: Collate
    forward: Forward
    configure_optimizer: ConfigureOptimizer
    save: Save
    load: Load
    expand: Expand | None = None


class TrainableComponent(_Slots):
    """What medjax trains.

    It keeps the programs that it was trained with, for as long as it lives: trained again with the
    same settings and shapes, it is not traced again, unless something has changed meanwhile that
    `init`, `forward` or `configure_optimizer` read from outside (see `medjax.reads`).

    Attributes
    ----------
    init : Init
        The variables to start from.
    preprocess : Preprocess
        Item of the dataset to example, on the host.
    collate : Collate
        Examples to batch, on the host.
    forward : Forward
        Batch to outputs and loss, traced.
    configure_optimizer : ConfigureOptimizer
        Learning rate to optimizer.
    save : Save
        Variables to the component's own files.
    load : Load
        The component's own files to variables.
    expand : Expand, optional
        Dataset to a dataset with an item for each row. By default each item is a row.
    """

    # Without __slots__ here, so that a record has a place for what it keeps.

    def read_outside(self) -> Any:
        """Return what compiled programs of this component depend on beside their arguments."""
        return reads(self.init, self.forward, self.configure_optimizer)

    def kept(self, kind: str, key: Any, make: Callable[[], Any]) -> Any:
        """Return what `make` returned before for an equal key, else what it returns now.

        What is kept lies in the record itself: it goes with the record and keeps nothing alive that
        the record does not.

        Parameters
        ----------
        kind : str
            What it is; of each kind the last two are kept, as each may take much memory.
        key : object
            What it depends on, to be compared, beside what is read from outside.
        make : callable
            Makes it.
        """
        key = (self.read_outside(), key)
        known: list[tuple[Any, Any]] = self.__dict__.setdefault(kind, [])
        for number, (before, value) in enumerate(known):
            if before == key:
                known.append(known.pop(number))
                return value
        value = make()
        known.append((key, value))
        del known[:-2]
        return value

    def __getstate__(self) -> None:
        """Leave the programs out of copies and pickles."""
