"""ClassificationLoss: cross-entropy with class weights, label smoothing and focus."""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from medjax.metrics import Mean

__all__ = ["CROSS_ENTROPY", "ClassificationLoss", "balanced_weights"]

_Weights = Mapping[str, float] | tuple[tuple[str, float], ...]


def balanced_weights(labels: Iterable[str]) -> dict[str, float]:
    r"""Return weights with which every class counts alike in the loss.

    The weight of a class with :math:`n_c` of :math:`n` labels is :math:`n / (K n_c)` for :math:`K`
    classes, as in ``class_weight="balanced"`` of scikit-learn.

    Parameters
    ----------
    labels : iterable of str
        Labels of the training data, one for each text or token.

    Examples
    --------
    >>> balanced_weights(["no", "no", "no", "yes"])
    {'no': 0.6666666666666666, 'yes': 2.0}
    """
    counts = collections.Counter(labels)
    total = sum(counts.values())
    return {name: total / (len(counts) * count) for name, count in sorted(counts.items())}


@dataclasses.dataclass(frozen=True)
class ClassificationLoss:
    r"""The loss of a classifier, as a sum and a weight that no batch or device changes.

    With one class for each text or token, class :math:`y` of probability :math:`p_y` costs

    .. math:: (1 - p_y)^\gamma \left(-(1 - \epsilon) w_y \log p_y
              - \frac{\epsilon}{K} \sum_c w_c \log p_c\right)

    and counts :math:`w_y` in the mean, as in ``torch.nn.CrossEntropyLoss``. With any number of
    classes, each class costs the same with :math:`K = 2`, the weight :math:`v_c w_c` if the text
    has it and :math:`w_c` if not, and counts 1, as in ``torch.nn.BCEWithLogitsLoss``.

    Attributes
    ----------
    class_weights : mapping of str to float
        Weight :math:`w` of classes by name; 1 for others. See `balanced_weights`.
    label_smoothing : float
        Share :math:`\epsilon` of a label that is spread over all classes, in [0, 1).
    focal_gamma : float
        Exponent :math:`\gamma` by which labels that are predicted well count less: the focal loss.
    pos_weight : mapping of str to float
        Weight :math:`v` of having a class, by name, where texts may have several; 1 for others.

    Raises
    ------
    ValueError
        If a value is out of range.

    References
    ----------
    Lin et al., "Focal loss for dense object detection", 2017; Szegedy et al., "Rethinking the
    Inception architecture for computer vision", 2016, for label smoothing.

    Examples
    --------
    >>> loss = ClassificationLoss(class_weights={"yes": 3.0})
    >>> labels, counts = jnp.array([1, 0]), jnp.ones(2)
    >>> mean = loss.of_labels(jnp.zeros((2, 2)), labels, counts, ("no", "yes"))
    >>> float(mean.weight), round(float(mean.compute()), 4)
    (4.0, 0.6931)
    """

    class_weights: _Weights = ()
    label_smoothing: float = 0.0
    focal_gamma: float = 0.0
    pos_weight: _Weights = ()

    def __post_init__(self) -> None:
        """Check every field; weights become tuples, so that a component can be compared."""
        for name in ("class_weights", "pos_weight"):
            pairs = getattr(self, name)
            if isinstance(pairs, str):
                msg = (
                    f"{name} is {pairs!r}; expected weights by class, such as "
                    "balanced_weights(label of each training text)"
                )
                raise ValueError(msg)
            weights = dict(pairs)
            if any(not np.isfinite(w) or w < 0 for w in weights.values()):
                raise ValueError(f"{name} is {weights}; expected finite weights of at least 0")
            object.__setattr__(self, name, tuple(sorted(weights.items())))
        if not 0 <= self.label_smoothing < 1:
            msg = f"label_smoothing is {self.label_smoothing}; expected 0.0 to below 1.0"
            raise ValueError(msg)
        if not 0 <= self.focal_gamma < np.inf:
            raise ValueError(f"focal_gamma is {self.focal_gamma}; expected at least 0.0")

    def check(self, classes: Sequence[str], *, multi_label: bool) -> None:
        """Raise ValueError if a weight belongs to no class, or has no effect.

        Parameters
        ----------
        classes : sequence of str
            Names of the classes.
        multi_label : bool
            Whether there may be any number of them.
        """
        for name in ("class_weights", "pos_weight"):
            if unknown := [label for label, _ in getattr(self, name) if label not in classes]:
                msg = f"{name} has {unknown[0]!r}; expected some of the classes {list(classes)}"
                raise ValueError(msg)
        if self.pos_weight and not multi_label:
            msg = "pos_weight has no effect on exclusive classes; expected class_weights instead"
            raise ValueError(msg)

    def settings(self) -> dict[str, Any]:
        """Return the attributes, ready for JSON.

        Examples
        --------
        >>> ClassificationLoss(class_weights={"yes": 4.0}).settings()["class_weights"]
        {'yes': 4.0}
        """
        weights = {name: dict(getattr(self, name)) for name in ("class_weights", "pos_weight")}
        return {**dataclasses.asdict(self), **weights}

    def of_labels(
        self, logits: jax.Array, labels: jax.Array, counts: jax.Array, classes: Sequence[str]
    ) -> Mean:
        """Return the loss of labels that exclude each other.

        Parameters
        ----------
        logits : jax.Array
            Float32, shape (..., classes).
        labels : jax.Array
            Numbers of classes, int, shape (...).
        counts : jax.Array
            0 where there is no label, 1 elsewhere, shape (...).
        classes : sequence of str
            Names of the classes, in the order of the logits.
        """
        labels = jnp.maximum(labels, 0)
        if self == CROSS_ENTROPY:
            losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
            return Mean.of(losses, counts)
        weights = _in_order(self.class_weights, classes)
        logs = jax.nn.log_softmax(logits)
        of_label = jnp.take_along_axis(logs, labels[..., None], -1)[..., 0]
        weight = weights[labels]
        smooth = self.label_smoothing
        losses = -(1 - smooth) * weight * of_label - smooth * (weights * logs).mean(-1)
        losses = losses * _focus(of_label, self.focal_gamma)
        return Mean((losses * counts).sum(), (weight * counts).sum())

    def of_targets(
        self, logits: jax.Array, targets: jax.Array, counts: jax.Array, classes: Sequence[str]
    ) -> Mean:
        """Return the loss of any number of classes.

        Parameters
        ----------
        logits : jax.Array
            Float32, shape (rows, classes).
        targets : jax.Array
            0 or 1 for each class, shape (rows, classes).
        counts : jax.Array
            1 for real rows, 0 for padding, shape (rows,).
        classes : sequence of str
            Names of the classes, in the order of the logits.
        """
        weights, having = (
            _in_order(pairs, classes) for pairs in (self.class_weights, self.pos_weight)
        )
        targets = targets.astype(jnp.float32)  # bfloat16 would round the smoothing
        smoothed = targets * (1 - self.label_smoothing) + self.label_smoothing / 2
        of_having, of_lacking = jax.nn.log_sigmoid(logits), jax.nn.log_sigmoid(-logits)
        losses = -(having * smoothed * of_having + (1 - smoothed) * of_lacking) * weights
        of_target = jnp.where(targets > 0, of_having, of_lacking)
        losses = losses * _focus(of_target, self.focal_gamma)
        return Mean.of(losses, jnp.broadcast_to(counts[:, None], losses.shape))


CROSS_ENTROPY = ClassificationLoss()
"""The loss without weights, smoothing or focus."""


def _in_order(pairs: _Weights, classes: Sequence[str]) -> jax.Array:
    """Return the weight of each class, float32, shape (classes,)."""
    given = dict(pairs)
    return jnp.array([given.get(name, 1.0) for name in classes], jnp.float32)


def _focus(of_label: jax.Array, gamma: float) -> jax.Array | float:
    """Return (1 - p)^gamma of log-probabilities, with a finite gradient at p = 1."""
    if gamma == 0:
        return 1.0
    missing = -jnp.expm1(of_label)
    return jnp.where(missing > 0, jnp.where(missing > 0, missing, 1.0) ** gamma, 0.0)
