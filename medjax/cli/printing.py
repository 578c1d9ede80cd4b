"""How commands print what they have found."""

from __future__ import annotations

import json
import math
from typing import Any

__all__ = ["as_json"]


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


def _finite(found: Any) -> Any:
    if isinstance(found, dict):
        return {name: _finite(value) for name, value in found.items()}
    if isinstance(found, list | tuple):
        return [_finite(value) for value in found]
    return None if isinstance(found, float) and not math.isfinite(found) else found
