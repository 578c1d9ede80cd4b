"""Making a loader: from a dataset, a component and the user's settings."""

from __future__ import annotations

from collections.abc import Sequence

import jax
from jax.sharding import Mesh

from medjax import sharding
from medjax.component import TrainableComponent, count_parameters
from medjax.config import Options, TrainerConfig
from medjax.data.dataset import Dataset, expand
from medjax.data.fitting import (
    STANDARD_LENGTHS,
    Passes,
    ShapeCost,
    fit_lengths,
    lengths_beyond,
    measure,
)
from medjax.data.ladder import HUGGING_FACE_PADDING, Ladder
from medjax.data.loader import DataLoader
from medjax.data.source import (
    Cache,
    Examples,
    ExampleSource,
    InProcess,
    Workers,
)
from medjax.target import platform_of

__all__ = ["get_dataloader", "ladder_of"]


def ladder_of(
    options: Options, fitted: Sequence[int] = STANDARD_LENGTHS, platform: str = "cpu"
) -> Ladder:
    """Return the ladder that the options describe: lengths, and columns padded to them.

    Parameters
    ----------
    options : Options
        For `length_ladder` and `padding`.
    fitted : sequence of int
        The lengths if `length_ladder` is "fitted".
    platform : str
        The platform that they are for.
    """
    padding = {**HUGGING_FACE_PADDING, **options.padding}
    fills = {name: fill for name, fill in padding.items() if fill is not None}
    if options.length_ladder != "fitted":
        return Ladder(options.length_ladder, fills)
    last = fitted[-1]
    return Ladder((*fitted, *lengths_beyond(last, platform)), fills, expected=last)


def _nb_parameters(component: TrainableComponent) -> int:
    key = jax.random.key(0)
    try:
        variables = jax.eval_shape(component.init, key)
    except jax.errors.JAXTypeError:  # an `init` that reads values
        variables = component.init(key)
    return count_parameters(variables)


def get_dataloader(
    data: Dataset,
    component: TrainableComponent,
    config: TrainerConfig,
    *,
    shuffle: bool,
    seed: int = 0,
    options: Options | None = None,
    mesh: Mesh | None = None,
    fitted: Sequence[int] | None = None,
    nb_parameters: int | None = None,
) -> DataLoader:
    """Create the loader that turns a dataset into batches for a component.

    Parameters
    ----------
    data : Dataset
        Anything with ``__len__`` and ``__getitem__``.
    component : TrainableComponent
        Its `preprocess` and `collate` are used, and `expand` if it has one.
    config : TrainerConfig
        For `batch_size` and `dataloader_nb_workers`.
    shuffle : bool
        Whether each epoch has a random order of its own, as in training; otherwise `preprocess`
        draws nothing either.
    seed : int
        Seed of the order and of augmentation.
    options : Options, optional
        For lengths, grouping, caching and prefetching.
    mesh : jax.sharding.Mesh, optional
        Where batches are put; by default all devices.
    fitted : sequence of int, optional
        The fitted ladder of an earlier loader, its `lengths`, if ``length_ladder="fitted"``. By
        default a ladder is fitted to the lengths of the items, which preprocesses some of them.
    nb_parameters : int, optional
        Number of parameters of the model, on which the cost of a shape depends; by default that of
        ``component.init``.

    Raises
    ------
    ValueError
        If the dataset has no length or no items, or cannot be sent to the workers, or `preprocess`
        needs ``rng`` without `shuffle`.

    Examples
    --------
    >>> import numpy as np
    >>> from medjax import BatchData
    >>> component = TrainableComponent(
    ...     init=None,
    ...     preprocess=lambda item: {"x": item},
    ...     collate=lambda examples: BatchData(x=np.array([each["x"] for each in examples])),
    ...     forward=None,
    ...     configure_optimizer=None,
    ...     save=None,
    ...     load=None,
    ... )
    >>> config = TrainerConfig("runs/example", batch_size=2)
    >>> loader = get_dataloader([1.0, 2.0, 3.0], component, config, shuffle=False)
    >>> [batch.host["x"].tolist() for batch in loader.batches(epoch=1)]
    [[1.0, 2.0], [3.0]]
    """
    options = options or Options()
    mesh = mesh if mesh is not None else sharding.make_mesh()
    data = expand(data, component, training=shuffle)
    examples = Examples(data, component.preprocess, seed, training=shuffle)
    source: ExampleSource = InProcess(examples)
    if config.dataloader_nb_workers:
        source = Workers(examples, config.dataloader_nb_workers, options.worker_timeout)
    if options.cache_preprocessed:
        source = Cache(source, examples)
    platform = platform_of(mesh)
    if options.length_ladder == "fitted" and not fitted:
        lengths = measure(source, ladder_of(options), len(data))
        if lengths:
            passes = Passes(
                len(data), config.nb_training_epochs, config.batch_size, options.length_window
            )
            if nb_parameters is None:
                nb_parameters = _nb_parameters(component)
            bfloat16 = options.precision == "bfloat16"
            cost = ShapeCost.of(platform, nb_parameters, train=shuffle, bfloat16=bfloat16)
            fitted = fit_lengths(lengths, passes, cost, platform)
    return DataLoader(
        data,
        source,
        component.collate,
        batch_size=config.batch_size,
        seed=seed,
        shuffle=shuffle,
        ladder=ladder_of(options, fitted or STANDARD_LENGTHS, platform),
        window=options.length_window,
        mesh=mesh,
        options=options,
        is_random=examples.is_random,
    )
