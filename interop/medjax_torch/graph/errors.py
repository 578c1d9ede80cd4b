"""Errors for the author of a component, and the lines of the component that they refer to."""

from __future__ import annotations

import random
import re
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path

import torch

_TORCH = str(Path(torch.__file__).parent)
_OWN = str(Path(__file__).parents[1])
_JOINT = str(Path(__file__).with_name("joint.py"))
_FRAME = re.compile(r'File "(?P<file>.+)", line (?P<line>\d+), in (?P<name>.+)\n(?P<code>.*)')


class TraceError(RuntimeError):
    """Raised if a forward cannot be turned into a graph; names the line and what to write."""


class StoredValueError(TraceError):
    """Raised if forward depends on a Python value that it stores elsewhere, and that is lost."""


def at(line: str) -> str:
    """Return a line as part of a sentence, ``""`` if it is unknown."""
    return f" at {line}" if line else ""


_SAID = {
    "DataDependentOutputException": "it reads a value that is known only when the step runs",
    "DynamicOutputShapeException": "it creates a tensor whose shape depends on values",
    "GuardOnDataDependentSymNode": "it branches on a value that is known only when the step runs",
    "UnsupportedFakeTensorException": "it uses a kind of tensor that torch cannot trace",
    "UnsupportedOperatorException": "it calls an operation that torch cannot trace",
}
"""What torch's tracing exceptions mean, by class name."""


def cause(error: BaseException) -> str:
    """Return the message of an exception of torch's tracer, without its advice to developers."""
    kind = type(error).__name__
    first = str(error).strip().partition("\n")[0].rstrip(".")
    said = f"{kind}: {first}" if first else kind
    return f"{_SAID[kind]} ({said})" if kind in _SAID else said


def line_of_error(error: BaseException) -> str:
    """Return the innermost line of the component that raised `error`, ``""`` if none did."""
    return _line(inside_forward(traceback.extract_tb(error.__traceback__)))


def line_of_stack(stack_trace: str | None) -> str:
    """Return the line of the component where torch recorded an operation, ``""`` if none.

    Parameters
    ----------
    stack_trace : str or None
        The ``"stack_trace"`` of an fx node, with the outermost frame first.
    """
    frames = [
        traceback.FrameSummary(f["file"], int(f["line"]), f["name"], line=f["code"].strip())
        for f in _FRAME.finditer(stack_trace or "")
    ]
    # Releases of torch without the hook that `environment` replaces record the callers too.
    called = any(frame.filename == _JOINT for frame in frames)
    return _line(inside_forward(frames) if called else frames)


def line_here() -> str:
    """Return the line of the component that is currently running, ``""`` if none is."""
    return _line(inside_forward(traceback.extract_stack()))


def frames_here() -> list[traceback.FrameSummary]:
    """Return the frames of the component's forward that is currently running, outermost first."""
    frames: list[traceback.FrameSummary] = []
    for frame, line in traceback.walk_stack(sys._getframe()):
        code = frame.f_code
        if code.co_filename == _JOINT:
            return frames[::-1]
        if is_of_component(code.co_filename):
            frames.append(
                traceback.FrameSummary(code.co_filename, line, code.co_name, lookup_line=False)
            )
    return []


def is_of_component(file: str) -> bool:
    """Return whether a file lies outside of torch, medjax and the module `random`."""
    return not file.startswith((_TORCH, _OWN, "<")) and file != random.__file__


def inside_forward(frames: Sequence[traceback.FrameSummary]) -> list[traceback.FrameSummary]:
    """Return the frames of the component's forward, without its callers, torch and medjax."""
    own = (index for index, frame in enumerate(frames) if frame.filename == _JOINT)
    entry = max(own, default=len(frames))
    return [frame for frame in frames[entry + 1 :] if is_of_component(frame.filename)]


def _line(inside: Sequence[traceback.FrameSummary]) -> str:
    """Describe the innermost frame and, if it is in a library, the user's frame that led to it."""
    if not inside:
        return ""
    last = inside[-1]
    text = f"{last.filename}:{last.lineno} in {last.name}: {last.line}"
    installed = ("site-packages", "dist-packages")
    own = [f for f in inside if not any(part in Path(f.filename).parts for part in installed)]
    if own and own[-1] is not last:
        text += f" (called at {own[-1].filename}:{own[-1].lineno})"
    return text
