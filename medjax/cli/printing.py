"""How commands print what they have found."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Any

__all__ = ["as_json", "print_findings"]


def as_json(found: Any) -> str:
    """Return findings as JSON, which has no NaN and no infinity: both become null.

    Examples
    --------
    >>> print(as_json({"loss": math.nan, "epochs": [1, 2]}))
    {
     "loss": null,
     "epochs": [
      1,
      2
     ]
    }
    """
    return json.dumps(_finite(found), indent=1, ensure_ascii=False, allow_nan=False)


def print_findings(
    found: dict[str, Any], as_text: Callable[[dict[str, Any]], str], *, for_programs: bool
) -> int:
    """Print findings and return the exit status: 0 if they are sound, else 1.

    Parameters
    ----------
    found : dict
        The findings, and as ``"sound"`` whether nothing is bad.
    as_text : callable
        Returns them for people.
    for_programs : bool
        Whether they are printed as JSON instead.

    Examples
    --------
    >>> print_findings({"sound": False}, lambda found: "bad", for_programs=False)
    bad
    1
    """
    print(as_json(found) if for_programs else as_text(found))
    return 0 if found["sound"] else 1


def _finite(found: Any) -> Any:
    if isinstance(found, dict):
        return {name: _finite(value) for name, value in found.items()}
    if isinstance(found, list | tuple):
        return [_finite(value) for value in found]
    return None if isinstance(found, float) and not math.isfinite(found) else found
