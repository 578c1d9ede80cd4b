"""Whether a higher or a lower score is the better one, told from its name."""

from __future__ import annotations

import re

__all__ = ["is_higher_better"]

_HIGHER = frozenset(
    (
        "acc",
        "accuracy",
        "auc",
        "auprc",
        "auroc",
        "bleu",
        "dice",
        "f1",
        "f1score",
        "kappa",
        "mcc",
        "precision",
        "recall",
        "rouge",
        "sensitivity",
        "specificity",
    )
)
_LOWER = frozenset(
    ("brier", "cer", "der", "error", "errors", "loss", "mae", "mse", "perplexity", "rmse", "wer")
)
_ENDINGS = ("accuracy", "error", "f1", "loss", "precision", "recall")
_TURNED = frozenset(["neg", "negative", "minus", "inverse"])


def is_higher_better(name: str) -> bool | None:
    """Return whether higher values of a score are better; None if its name does not tell.

    All scores of medjax's own metrics tell, apart from supports. The last word that is known
    counts, as the first ones may be the name of a class.

    Parameters
    ----------
    name : str
        Name of the score, such as ``"micro_f1-score"``.

    Examples
    --------
    >>> is_higher_better("error_recall"), is_higher_better("word_error_rate")
    (True, False)
    >>> is_higher_better("support"), is_higher_better("neg_log_loss")
    (None, None)
    """
    words = re.findall(r"[a-z0-9]+", name.lower())
    if not _TURNED.isdisjoint(words):
        return None
    for word in reversed(words):
        known = next((ending for ending in _ENDINGS if word.endswith(ending)), word)
        if known in _HIGHER or known in _LOWER:
            return known in _HIGHER
        if known == "support":
            break
    return None
