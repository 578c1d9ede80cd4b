"""Gradients that torch would still hold of parameters that no group of the optimizer had."""

from __future__ import annotations

from collections.abc import Collection, Hashable


class LeftGradients:
    """Remembers which parameters had a gradient while the optimizer did not hold them.

    The optimizer's `zero_grad` does not reach these, so that torch adds up their gradients over all
    batches until they join a group. Here each update has the gradients of its own batches only.
    """

    def __init__(self) -> None:
        self._names = set[str]()
        self._noted = set[Hashable]()

    def note(self, graph: Hashable, gradients: Collection[str], held: Collection[str]) -> None:
        """Note a training step.

        Parameters
        ----------
        graph : hashable
            The graph that ran, which is noted once until parameters join or leave a group.
        gradients : collection of str
            Names of the parameters that get a gradient from it.
        held : collection of str
            Names of the parameters in the optimizer's groups.
        """
        if graph not in self._noted:
            self._noted.add(graph)
            self._names |= set(gradients).difference(held)

    def joined(self, held: Collection[str]) -> list[str]:
        """Return the names of those that are in a group now, and forget them.

        Parameters
        ----------
        held : collection of str
            Names of the parameters in the optimizer's groups.

        Examples
        --------
        >>> left = LeftGradients()
        >>> left.note(0, ["body", "head"], held=["body"])
        >>> left.joined(["body", "head"]), left.joined(["body", "head"])
        (['head'], [])
        """
        joined = sorted(self._names.intersection(held))
        self._names.difference_update(held)
        self._noted.clear()
        return joined
