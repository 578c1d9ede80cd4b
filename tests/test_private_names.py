"""Private names of torch and JAX exist, and are used in one module of each package only.

A release that renames one of them fails here first, by name, and not somewhere in a training run.
"""

import ast
import importlib
import sys
from pathlib import Path

import pytest

import medjax

ROOT = Path(medjax.__file__).parents[1]
INTERNALS = (Path("medjax/jax_internals.py"), Path("interop/medjax_torch/torch_internals.py"))


def dotted(node):
    """Return a chain of attributes as text, "" if it does not begin with a name."""
    names = []
    while isinstance(node, ast.Attribute):
        names.append(node.attr)
        node = node.value
    return ".".join([node.id, *reversed(names)]) if isinstance(node, ast.Name) else ""


def is_private(name):
    parts = name.split(".")[1:]
    return any(p.startswith("_") and not p.startswith("__") for p in parts) or (
        "experimental" in parts
    )


def private_names():
    """Return every private name of torch and jax that is used, with the files that do."""
    names = {}
    for path in sorted(p for room in ("medjax", "interop") for p in (ROOT / room).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            used = []
            if isinstance(node, ast.ImportFrom) and node.module:
                used = [f"{node.module}.{alias.name}" for alias in node.names]
            elif isinstance(node, ast.Import):
                used = [alias.name for alias in node.names]
            elif isinstance(node, ast.Attribute):
                used = [dotted(node)]
            for name in used:
                if name.split(".")[0] in ("torch", "jax", "jaxlib") and is_private(name):
                    names.setdefault(name, set()).add(path.relative_to(ROOT))
    return names


def resolved(name):
    """Import and read a dotted name."""
    parts = name.split(".")
    for cut in range(len(parts), 0, -1):
        try:
            value = importlib.import_module(".".join(parts[:cut]))
        except ImportError:
            continue
        for part in parts[cut:]:
            value = getattr(value, part)
        return value
    raise ImportError(name)


NAMES = private_names()


@pytest.mark.parametrize("name", NAMES)
def test_a_private_name_exists(name):
    pytest.importorskip(name.split(".")[0])
    try:
        resolved(name)
    except (AttributeError, ImportError):
        version = getattr(sys.modules[name.split(".")[0]], "__version__", "?")
        users = ", ".join(map(str, NAMES[name]))
        pytest.fail(f"{name}, used in {users}, is not in {name.split('.')[0]} {version}")


@pytest.mark.parametrize("name", [n for n in NAMES if not n.startswith("torch.ops.")])
def test_a_private_name_stands_in_one_module(name):
    assert NAMES[name] <= set(INTERNALS)


def test_names_are_found():
    assert any(name.startswith("torch._C") for name in NAMES)


@pytest.mark.parametrize("room", ["medjax", "interop"])
def test_no_module_mocks(room):
    for path in (ROOT / room).rglob("*.py"):
        assert "unittest" not in path.read_text(encoding="utf-8"), path
