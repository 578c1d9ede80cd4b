"""The findings of `inspect` as lines of text."""

from __future__ import annotations

import dataclasses
import textwrap
from collections.abc import Iterator
from typing import Any

from medjax.checkpoint.space import megabytes
from medjax.config import Options, TrainerConfig
from medjax.metrics.tables import format_table

__all__ = ["as_text"]

Found = dict[str, Any]

_LABEL_WIDTH, _WIDTH = 14, 110
_LAST_EPOCHS = 5
_AVERAGES = ("micro_f1-score", "macro_f1-score")
_FEW = 100_000  # bytes, below which megabytes say nothing


def as_text(found: Found) -> str:
    """Return the findings of `medjax.cli.inspection.inspect` in lines for a terminal."""
    lines = _of_run(found) if found["kind"] == "run" else _of_checkpoint(found)
    return "\n".join(line.rstrip() for part in lines for line in part.split("\n"))


def _of_run(found: Found) -> Iterator[str]:
    yield f"{found['path']}: {_soundness(found)}"
    yield from _damage(found)
    holder = found["locked by"]
    yield _row("in use", "no" if holder is None else f"by {holder}")
    if found["left over"]:
        yield _row("left over", ", ".join(found["left over"]))
    yield ""
    if found["checkpoints"]:
        rows = [_checkpoint_row(row) for row in found["checkpoints"]]
        yield format_table([["checkpoint", "saved at", "metric", "size", ""], *rows])
        yield ""
    chosen = found["chosen"]
    if chosen is None:
        problem = found["auto"].get("problem", "there is no checkpoint, so it starts afresh")
        yield f'resume="auto": {problem}'
        return
    yield from _of_checkpoint(chosen)


def _checkpoint_row(row: Found) -> list[str]:
    metric = row.get("metric", {"value": None})
    value = "-" if metric["value"] is None else f"{metric['name']} {metric['value']:.4f}"
    at = f"epoch {row['epoch'] - 1}" if "epoch" in row else "-"
    if row.get("batch"):
        at = f"epoch {row['epoch']}, batch {row['batch']}"
    roles = [role for role in ("best", "last") if row.get(role)]
    roles += ["DAMAGED"] if row["damage"] else []
    return [row["name"], at, value, _size(row["bytes"]), " ".join(roles)]


def _of_checkpoint(found: Found) -> Iterator[str]:
    yield f"{found['path']}: {_soundness(found)}, {_size(found['bytes'])}"
    yield from _damage(found)
    yield from _component_rows(found["component"])
    if "written by" in found:
        versions = [f"{name} {version}" for name, version in found.get("versions", {}).items()]
        yield _row("written by", ", ".join([found["written by"], *versions]))
    if "run" in found:
        yield from _training_rows(found)
    if changed := _other_than_default(found["settings"]):
        yield _row("settings", " ".join(f"{n}={v!r}" for n, v in changed.items()))
    yield ""
    yield from _resume_rows(found)
    if found.get("history"):
        yield ""
        yield _history(found)
    if "arrays" in found:
        yield ""
        yield _arrays(found["arrays"])


def _soundness(found: Found) -> str:
    nb_damages = len(found["damage"])
    if nb_damages:
        return f"DAMAGED ({nb_damages} finding{'s' if nb_damages > 1 else ''})"
    has_hashes = "run" in found or found["kind"] == "run"
    return "sound" if has_hashes else "without hashes, so nothing could be verified"


def _damage(found: Found) -> Iterator[str]:
    for text in found["damage"]:
        yield f"  {text}"


def _row(label: str, text: str) -> str:
    return textwrap.fill(
        text,
        _WIDTH,
        initial_indent=label.ljust(_LABEL_WIDTH),
        subsequent_indent=" " * _LABEL_WIDTH,
        break_long_words=False,
        break_on_hyphens=False,
    )


def _component_rows(component: Found) -> Iterator[str]:
    files = ", ".join(f"{name} ({_size(size)})" for name, size in component["files"].items())
    if component["class"] is None:
        named = component.get("architectures") or ["not one of medjax's own"]
        yield _row("component", ", ".join(named))
    else:
        length = component["max_length"]
        tokens = "" if length is None else f", windows of {length} tokens"
        yield _row("component", f"{component['class']} ({component['model_type']}){tokens}")
        yield _row("classes", ", ".join(component["classes"]))
    if "problem" in component:
        yield _row("", component["problem"])
    yield _row("its files", files or "none")


def _training_rows(found: Found) -> Iterator[str]:
    metric = found["metric"]
    if metric["value"] is not None:
        yield _row("metric", f"{metric['name']} {metric['value']:.6g}")
    items = found["data"].get("items")
    yield _row("data", f"{items} items to train on, seed {found['seed']}")
    rate = found["schedule"].get("learning_rate")
    yield _row("learning rate", f"{rate:g}, before any schedule by update")
    moments = [
        f"{group['name'].removeprefix('opt_state ')} ({_size(group['nb_bytes'])})"
        for group in found["arrays"]
        if group["name"].startswith("opt_state ") and not _is_scalars(group)
    ]
    if moments:
        yield _row("optimizer", f"remembers {', '.join(moments)}")
    for group in found["settings"].get("torch optimizer", ()):
        yield _row("", " ".join(f"{n}={v!r}" for n, v in group.items() if v not in (None, False)))
    if scheduler := found["settings"].get("torch scheduler"):
        yield _row("scheduler", scheduler["class"])
    for name, lengths in found["ladders"].items():
        yield _row("ladder", f"{name}: {' '.join(map(str, lengths))}")


def _other_than_default(settings: Found) -> Found:
    defaults = {
        field.name: field.default
        for kind in (TrainerConfig, Options)
        for field in dataclasses.fields(kind)
    }
    return {n: v for n, v in settings.items() if n in defaults and v != defaults[n] and v != {}}


def _resume_rows(found: Found) -> Iterator[str]:
    resume, name = found["resume"], found["path"].rpartition("/")[2]
    if "problem" in resume:
        yield _row("resuming", f"is refused or not possible: {resume['problem']}")
        return
    refused = "is refused, as it is damaged; it stands at: " if found["damage"] else ""
    yield _row("resuming", f"{refused}{_position(resume)}")
    auto = resume["auto"]
    if auto is None:
        yield _row("", 'only by its path: resume="auto" sees no folder of this name')
    elif auto["chosen"] == name:
        yield _row("", 'it is what resume="auto" takes in its folder')
    else:
        taken = auto["chosen"] or auto["problem"]
        yield _row("", f'resume="auto" takes another in its folder: {taken}')
    for aside in (auto or {}).get("set aside", ()):
        yield _row("", f"{aside} is damaged and will be set aside")
    if must := resume.get("must not change"):
        kept = ", ".join(f"{n}={v!r}" for n, v in must.items())
        yield _row("", f"refused unless these stay as they are: {kept}")
    differing = [
        f"{n} {v['saved']} -> {v['now']}" for n, v in resume["versions that differ"].items()
    ]
    if differing:
        yield _row("", f"not bit for bit, as versions differ: {', '.join(differing)}")


def _position(resume: Found) -> str:
    if resume.get("finished"):
        return f"all {resume['epochs']} epochs are done; it continues if more are asked for"
    of_epochs = f" of {resume['epochs']}" if "epochs" in resume else ""
    of_batches = f" of {resume['batches in an epoch']}" if "epochs" in resume else ""
    if "stopped" in resume:
        return f"was stopped before epoch {resume['epoch']}{of_epochs}: {resume['stopped']}"
    if resume["batch"]:
        return f"epoch {resume['epoch']}{of_epochs}, after batch {resume['batch']}{of_batches}"
    return f"from the beginning of epoch {resume['epoch']}{of_epochs}"


def _history(found: Found) -> str:
    history = found["history"]
    wanted = (f"eval {name}" for name in (found["metric"]["name"], *_AVERAGES))
    shown = list(dict.fromkeys(["train loss", "eval loss", *wanted]))
    start = max(0, len(history) - _LAST_EPOCHS)
    lines = [
        (number, {f"{phase} {name}": v for phase, of in row.items() for name, v in of.items()})
        for number, row in enumerate(history[start:], start=start + 1)
    ]
    names = [name for name in shown if any(name in scores for _, scores in lines)]
    cells = [
        [str(number), *(f"{scores[n]:.4f}" if n in scores else "-" for n in names)]
        for number, scores in lines
    ]
    return format_table([["epoch", *names], *cells])


def _is_scalars(group: Found) -> bool:
    return bool(group["nb_elements"] == group["nb_arrays"])


def _arrays(groups: list[Found]) -> str:
    scalars = [group for group in groups if _is_scalars(group)]
    rows = [
        [group["name"], *_counts([group]), " ".join(group["dtypes"])]
        for group in groups
        if not _is_scalars(group)
    ]
    head = ["arrays", "number", "elements", "size", "dtypes"]
    ends = [["scalars", *_counts(scalars), ""], ["total", *_counts(groups), ""]]
    return format_table([head, *rows, *ends])


def _counts(groups: list[Found]) -> list[str]:
    number, elements, size = (
        sum(group[name] for group in groups) for name in ("nb_arrays", "nb_elements", "nb_bytes")
    )
    return [f"{number:,}", f"{elements:,}", _size(size)]


def _size(number: int) -> str:
    return f"{number:,} bytes" if number < _FEW else megabytes(number)
