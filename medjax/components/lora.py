"""Lora: train low-rank changes of some matrices, and leave the rest of a component as it is."""

from __future__ import annotations

import dataclasses
import logging
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from medjax.batch import BatchData
from medjax.component import TrainableComponent, Variables
from medjax.components.lora_files import read_matrices, write_matrices
from medjax.metrics import Mean
from medjax.models.adapters import Adapter
from medjax.sharding import to_host

__all__ = ["FROZEN", "Lora", "check_merged"]

FROZEN = "frozen"
"""Name of the collection with the weights that are not trained."""

_ADAPTERS, _TRAINED = "lora", "trained"
_HEADS = ("classifier", "head")

_LOGGER = logging.getLogger("medjax")

_Names = tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Lora:
    r"""A component of which only low-rank changes of some matrices, and whole heads, are trained.

    The kernel of a target becomes :math:`W + \frac{\alpha}{r} A B`, with :math:`W` frozen,
    :math:`A` of shape (inputs, r) and :math:`B` of shape (r, outputs). The optimizer has state for,
    and gradients are computed of, what is trained only. What is saved as the component's own files
    is merged, so it loads like any other. With no targets, all but `trained` is simply frozen.

    Attributes
    ----------
    base : TrainableComponent
        The component, for instance ``TokenClassification.from_pretrained(...).component``.
    rank : int
        :math:`r`.
    alpha : float
        :math:`\alpha`.
    targets : tuple of str
        Ends of the paths of the modules whose kernels are changed, such as ``"attention/query"``.
    trained : tuple of str, optional
        Beginnings of the paths of parameters that are trained as a whole. By default the heads
        of ready components, ``"classifier"`` and ``"head"``, if there are such.

    References
    ----------
    Hu et al., "LoRA: low-rank adaptation of large language models", 2021. The initial values are
    those of PEFT.

    Examples
    --------
    >>> import optax
    >>> base = TrainableComponent(
    ...     init=lambda key: {"params": {"encoder": {"kernel": jnp.ones((3, 2))},
    ...                                  "classifier": {"kernel": jnp.ones((2, 2))}}},
    ...     preprocess=dict, collate=list, forward=None, configure_optimizer=optax.sgd,
    ...     save=None, load=None)
    >>> lora = Lora(base, rank=1, targets=("encoder",), trained=("classifier",))
    >>> variables = lora.init(jax.random.key(0))
    >>> jax.tree.map(jnp.shape, variables["params"]["lora"])
    {'encoder': {'a': (3, 1), 'b': (1, 2)}}
    """

    base: TrainableComponent
    rank: int = 8
    alpha: float = 16.0
    targets: tuple[str, ...] = ("attention/query", "attention/value")
    trained: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        """Check the sizes."""
        if self.rank < 1 or not 0 < self.alpha < math.inf:
            msg = f"rank is {self.rank} and alpha {self.alpha}; expected at least 1 and above 0"
            raise ValueError(msg)
        for name in ("targets", "trained"):
            if isinstance(getattr(self, name), str):
                msg = f"{name} is {getattr(self, name)!r}; expected a tuple of paths"
                raise ValueError(msg)

    @property
    def component(self) -> TrainableComponent:
        """The component to train."""
        return self.base._replace(
            init=self.init,
            forward=self.forward,
            save=self.save,
            load=self.load,
            identity={**(self.base.identity or {}), "alpha": self.alpha},
        )

    def init(self, key: jax.Array) -> Variables:
        """Return the weights of the component, sorted into trained and frozen, and adapters.

        Raises
        ------
        ValueError
            If a target or a part to train matches nothing.
        """
        own, for_adapters = jax.random.split(key)
        return self._sorted(self.base.init(own), for_adapters)

    def _sorted(self, variables: Variables, key: jax.Array) -> Variables:
        leaves: dict[_Names, Any] = flatten_dict(variables["params"])
        modules = self._modules(leaves)
        whole = self._trained_paths(leaves) - {(*module, "kernel") for module in modules}
        if not whole and not modules:
            raise ValueError("targets and trained are empty; expected something to train")
        adapters: dict[_Names, Any] = {}
        for number, module in enumerate(modules):
            inputs, outputs = leaves[(*module, "kernel")].shape
            bound = 1 / math.sqrt(inputs)
            draw = jax.random.fold_in(key, number)
            shape = (inputs, self.rank)
            adapters[(*module, "a")] = jax.random.uniform(draw, shape, minval=-bound, maxval=bound)
            adapters[(*module, "b")] = np.zeros((self.rank, outputs), np.float32)
        others = {name: values for name, values in variables.items() if name != "params"}
        return {
            **others,
            "params": {
                _ADAPTERS: unflatten_dict(adapters),
                _TRAINED: unflatten_dict({path: leaves[path] for path in leaves if path in whole}),
            },
            FROZEN: unflatten_dict({path: leaves[path] for path in leaves if path not in whole}),
        }

    def _modules(self, leaves: dict[_Names, Any]) -> list[_Names]:
        """Return the paths of the modules that are changed, in order."""
        kernels = [path[:-1] for path in leaves if path[-1] == "kernel" and leaves[path].ndim == 2]
        for target in self.targets:
            if not any(_ends(module, target) for module in kernels):
                raise ValueError(_told_targets(target, kernels))
        return [m for m in sorted(kernels) if any(_ends(m, target) for target in self.targets)]

    def _trained_paths(self, leaves: dict[_Names, Any]) -> set[_Names]:
        """Return the paths of the parameters that are trained as a whole."""
        chosen: set[_Names] = set()
        for part in _HEADS if self.trained is None else self.trained:
            matching = {path for path in leaves if _begins(path, part)}
            if not matching and self.trained is not None:
                known = sorted({path[0] for path in leaves})
                msg = f"trained has {part!r}, where no parameter is; expected paths in {known}"
                raise ValueError(msg)
            chosen |= matching
        return chosen

    def merged(self, variables: Variables) -> Variables:
        """Return variables of the component itself, with the changes added to its weights.

        Pass them to its `predict`. They have the dtype of what is trained.
        """
        params = variables["params"]
        adapters = flatten_dict(params[_ADAPTERS])
        trained = flatten_dict(params[_TRAINED])
        dtype = next(iter({**adapters, **trained}.values())).dtype
        leaves = dict(flatten_dict(variables[FROZEN]))
        for module in sorted({path[:-1] for path in adapters}):  # one program in all processes
            kernel = leaves[(*module, "kernel")]
            leaves[(*module, "kernel")] = kernel + self._change(adapters, module)
        merged = {**{path: leaf.astype(dtype) for path, leaf in leaves.items()}, **trained}
        others = {name: v for name, v in variables.items() if name not in ("params", FROZEN)}
        return {**others, "params": unflatten_dict(merged)}

    def forward(
        self,
        variables: Variables,
        input_batch: BatchData,
        key: jax.Array,
        *,
        return_loss: bool,
        eval_mode: bool,
    ) -> tuple[BatchData, Mean | None, Variables]:
        """Run the component's forward pass with the merged weights."""
        return self.base.forward(
            self.merged(variables), input_batch, key, return_loss=return_loss, eval_mode=eval_mode
        )

    def save(self, path: Path, variables: Variables) -> None:
        """Write the component's own files, merged, and ``lora.safetensors`` with the matrices."""
        self.base.save(path, jax.tree.map(np.asarray, self.merged(variables)))
        write_matrices(path, flatten_dict(variables["params"][_ADAPTERS]), self.alpha / self.rank)

    def load(self, path: Path) -> Variables:
        """Return what `save` wrote: frozen weights, up to rounding, and the trained changes.

        In a folder without the matrices of such a `Lora`, as the component itself writes, the
        weights are frozen as they are, and the adapters change nothing yet.
        """
        variables = self._sorted(self.base.load(path), jax.random.key(0))
        expected = flatten_dict(variables["params"][_ADAPTERS])
        matrices = read_matrices(path, expected, self.alpha / self.rank)
        if matrices is None:
            return variables
        frozen = flatten_dict(variables[FROZEN])
        for module in {path[:-1] for path in matrices}:
            change = self._change(matrices, module)
            frozen[(*module, "kernel")] = np.asarray(frozen[(*module, "kernel")] - change)
        params = {**variables["params"], _ADAPTERS: unflatten_dict(matrices)}
        return {**variables, "params": params, FROZEN: unflatten_dict(frozen)}

    def _change(self, matrices: Mapping[_Names, Any], module: _Names) -> jax.Array:
        """Return what the matrices of a module add to its kernel."""
        a, b = (matrices[(*module, name)].astype(jnp.float32) for name in ("a", "b"))
        return jnp.matmul(a, b, precision="highest") * (self.alpha / self.rank)

    def adapter(self, variables: Variables) -> Adapter:
        """Return what was trained, for `Adapter.write`, which writes it as PEFT does.

        With several processes, call it in all of them: parts are gathered from each.

        Raises
        ------
        ValueError
            If the matrices change nothing: they were not trained, or are merged into the weights.
        """
        arrays = to_host(variables["params"])
        matrices = flatten_dict(arrays[_ADAPTERS])
        if matrices and not any(np.any(leaf) for path, leaf in matrices.items() if path[-1] == "b"):
            msg = (
                "all matrices b are zero; expected those of training: the changes may be merged "
                "into the weights, as in a checkpoint without lora.safetensors; take "
                "result.state.variables, or load a checkpoint of this Lora"
            )
            raise ValueError(msg)
        trained = flatten_dict(arrays[_TRAINED])
        return Adapter(self.rank, self.alpha, matrices, trained, self._classes)

    @property
    def _classes(self) -> tuple[str, ...] | None:
        """Names of the classes of a ready component, whose methods the functions of `base` are."""
        classes = getattr(getattr(self.base.load, "__self__", None), "classes", None)
        return classes if isinstance(classes, tuple) else None

    def with_adapter(self, variables: Variables, adapter: Adapter) -> Variables:
        """Return variables with the matrices of an adapter, such as one of `Adapter.read`.

        Its head is put in the order of the component's classes; a warning says so if the adapter,
        as PEFT writes it, does not name its own.

        Raises
        ------
        ValueError
            If it has another rank or scale, is for other classes, or changes other modules.
        """
        if (adapter.rank, adapter.alpha) != (self.rank, self.alpha):
            msg = (
                f"the adapter has rank {adapter.rank} and alpha {adapter.alpha}; expected "
                f"{self.rank} and {self.alpha}: make the Lora with those"
            )
            raise ValueError(msg)
        params = variables["params"]
        both = ((_ADAPTERS, adapter.matrices), (_TRAINED, self._in_order(adapter)))
        for name, found in both:
            expected = flatten_dict(params[name])
            if {p: np.shape(v) for p, v in found.items()} != {
                p: np.shape(v) for p, v in expected.items()
            }:
                differing = sorted("/".join(path) for path in found.keys() ^ expected.keys())
                msg = (
                    f"the adapter has other parameters ({', '.join(differing[:4]) or 'shapes'}); "
                    "expected those of targets and trained"
                )
                raise ValueError(msg)
        return {**variables, "params": {name: unflatten_dict(found) for name, found in both}}

    def _in_order(self, adapter: Adapter) -> Mapping[_Names, Any]:
        """Return what an adapter trained as a whole, its classifier for the component's classes."""
        head = [path for path in adapter.trained if path[0] == _HEADS[0]]
        if self._classes is None or not head:
            return adapter.trained
        if adapter.classes is None:
            _LOGGER.warning(
                "the adapter does not name the classes of its head; make sure that they are "
                f"{', '.join(self._classes)}, in this order"
            )
            return adapter.trained
        if sorted(adapter.classes) != sorted(self._classes):
            msg = (
                f"the adapter is for the classes {list(adapter.classes)}; expected "
                f"{list(self._classes)}: make the component with those of the adapter"
            )
            raise ValueError(msg)
        order = [adapter.classes.index(name) for name in self._classes]
        return {**adapter.trained, **{path: adapter.trained[path][..., order] for path in head}}


def _told_targets(target: str, kernels: list[_Names]) -> str:
    """Say which modules there are, and those that a target most likely was to be."""
    known = sorted({module[-1] for module in kernels})
    of_attention = {module[-2:] for module in kernels if module[-2:-1] == ("attention",)}
    ends = sorted("/".join(names) for names in of_attention)
    joined = [end for end in ends if any(name in end for name in ("query", "key", "value"))]
    advice = f": those of attention are {ends}" if ends else ""
    if joined == ["attention/query_key_value"]:
        advice += f"; this model has one matrix for all, so give targets=({joined[0]!r},)"
    return f"the target {target!r} is no module with a matrix; expected ends of {known}{advice}"


def check_merged(variables: Mapping[str, Any]) -> None:
    """Raise ValueError if variables are those of a `Lora`, which its component does not take.

    Examples
    --------
    >>> check_merged({"params": {"encoder": {}, "classifier": {}}})
    """
    if FROZEN in variables and _ADAPTERS in variables.get("params", {}):
        msg = (
            "the variables are those of a Lora, with frozen weights and changes apart; expected "
            "those of the component itself: give lora.merged(variables), or evaluate "
            "lora.component, which takes them as they are"
        )
        raise ValueError(msg)


def _ends(module: Sequence[str], target: str) -> bool:
    parts = tuple(target.split("/"))
    return tuple(module[-len(parts) :]) == parts


def _begins(path: Sequence[str], part: str) -> bool:
    parts = tuple(part.split("/"))
    return tuple(path[: len(parts)]) == parts
