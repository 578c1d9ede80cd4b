"""What a resumed run gets from its checkpoint besides weights, moments and position."""

from __future__ import annotations

from collections.abc import Callable

from torch.utils.data import DataLoader

from medjax.callbacks import TrainerCallback
from medjax_torch.batches import data_of
from medjax_torch.conversion import ConvertedComponent
from medjax_torch.session.kept_generators import KeptGenerators
from medjax_torch.session.kept_values import KeptValues


class Kept:
    """Keeps values of component and data, and the states of generators.

    Parameters
    ----------
    converted : ConvertedComponent
        The component that is trained.
    train_loader, eval_loader : torch.utils.data.DataLoader
        The data.

    Attributes
    ----------
    callbacks : list of TrainerCallback
        Save and restore it; to be put after the user's.
    """

    def __init__(
        self,
        converted: ConvertedComponent,
        train_loader: DataLoader[object],
        eval_loader: DataLoader[object],
    ) -> None:
        # The number of items is part of the name, as values may be derived from it.
        data = {
            f"{name} data of {len(loader.dataset)} items": data_of(loader)  # type: ignore[arg-type]
            for name, loader in (("training", train_loader), ("evaluation", eval_loader))
        }
        self._values = KeptValues(converted, data)
        self._generators = KeptGenerators(train_loader, eval_loader)
        self.callbacks: list[TrainerCallback] = [self._values, self._generators]

    def rewound(self) -> Callable[[], None]:
        """Prepare reading the batches again that come before a position within an epoch.

        Returns
        -------
        callable
            Sets what there was at the position.
        """
        of_values, of_generators = self._values.rewound(), self._generators.rewound()

        def set_all() -> None:
            of_values()
            of_generators()

        return set_all
