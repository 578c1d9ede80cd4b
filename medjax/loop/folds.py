"""The folds of a cross-validation: items by group, classes in like shares."""

from __future__ import annotations

import collections
import logging
import warnings
from collections.abc import Hashable, Mapping, Sequence

import numpy as np

from medjax.data import Dataset
from medjax.metrics.groups import number_groups

__all__ = ["make_folds", "tell_shared_texts"]

logger = logging.getLogger("medjax")


def tell_shared_texts(data: Dataset, folds: Sequence[np.ndarray]) -> None:
    """Warn of items whose text is also in another fold: those folds are trained on it.

    Parameters
    ----------
    data : Dataset
        All items.
    folds : sequence of numpy.ndarray
        From `make_folds`.
    """
    folds_of_text = collections.defaultdict(list)
    for number, fold in enumerate(folds):
        for position in fold:
            item = data[int(position)]
            text = item.get("text") if isinstance(item, Mapping) else getattr(item, "text", None)
            if isinstance(text, str):
                folds_of_text[text].append(number)
    if nb_shared := sum(len(each) for each in folds_of_text.values() if len({*each}) > 1):
        logger.warning(
            f"{nb_shared} of {len(data)} items have a text that is also in another fold; scores "
            "on texts that were trained on are too high: remove copies, or give items with the "
            "same text one group in groups"
        )


def make_folds(
    nb_items: int,
    nb_folds: int,
    strata: Sequence[Hashable] | None,
    groups: Sequence[Hashable] | None,
    seed: int,
) -> list[np.ndarray]:
    """Return the positions of the items of each fold, in order.

    Parameters
    ----------
    nb_items, nb_folds : int
        Numbers of items and folds.
    strata, groups : sequence of hashable, optional
        As for `cross_validate`.
    seed : int
        Folds are drawn by it.

    Raises
    ------
    ImportError
        If scikit-learn is not installed.
    ValueError
        If there is not a stratum or group for each item, or the folds cannot be made.
    """
    try:
        from sklearn.model_selection import KFold, StratifiedGroupKFold
    except ImportError as error:
        msg = "cross_validate needs scikit-learn: pip install 'medjax[scores]'"
        raise ImportError(msg) from error
    for name, values in (("strata", strata), ("groups", groups)):
        if values is not None and len(values) != nb_items:
            msg = f"found {name} for {len(values)} items; expected {nb_items}, one for each"
            raise ValueError(msg)
    group_of_item = [*range(nb_items)] if groups is None else number_groups(groups)
    nb_groups = len(set(group_of_item))
    kind = "items" if groups is None else "groups"
    if nb_groups < 2:
        found = f"{nb_groups} {kind.removesuffix('s') if nb_groups == 1 else kind}"
        msg = f"found {found} to make folds of; expected at least 2, as a fold holds some out"
        raise ValueError(msg)
    if not 2 <= nb_folds <= nb_groups:
        msg = f"nb_folds is {nb_folds}; expected 2 to {nb_groups}, the number of {kind}"
        raise ValueError(msg)
    state = seed % 2**32  # what scikit-learn takes
    items = np.zeros(nb_items)
    if strata is None and groups is None:
        splits = list(KFold(nb_folds, shuffle=True, random_state=state).split(items))
    else:
        classes = np.zeros(nb_items, int) if strata is None else _numbers(strata)
        for stratum, count in collections.Counter(() if strata is None else strata).items():
            if count < nb_folds:
                logger.warning("strata has %r %d times in %d folds", stratum, count, nb_folds)
        split = StratifiedGroupKFold(nb_folds, shuffle=True, random_state=state).split
        with warnings.catch_warnings(action="ignore", category=UserWarning):  # told above
            splits = list(split(items, classes, np.array(group_of_item)))
    folds = [np.sort(held_out) for _, held_out in splits]
    if not all(map(len, folds)):
        sizes = [len(fold) for fold in folds]
        msg = f"the groups make folds of {sizes} items; expected some in each: use fewer folds"
        raise ValueError(msg)
    return folds


def _numbers(values: Sequence[Hashable]) -> np.ndarray:
    """Return a number for each distinct value."""
    known: dict[Hashable, int] = {}
    return np.array([known.setdefault(value, len(known)) for value in values])
