"""Which room may import which, in both packages, and what importing a package must not do."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import medjax

# A room is a module or a package at the top of medjax or medjax_torch. It imports rooms of a lower
# rank only; lazy imports and those for type checking count as well.
RANKS = {
    "medjax": {
        "jax_internals": 0,  # the private parts of JAX
        "checks": 0,  # what the fields of a record may be
        "garbage": 0,  # how often Python looks for unreachable objects
        "target": 0,  # the platform that a program is traced for
        "config": 1,  # what a run is asked to do
        "batch": 1,  # columns with one entry per row
        "audio": 1,  # turns of speakers; knows no other room
        "text": 1,  # documents, entities as tags, readers
        "schedules": 1,  # learning rates
        "distributed": 1,  # many processes: found, agreed, ended together; knows no other room
        "runtime": 1,  # compiler, process, allocator; knows no other room
        "models": 1,  # encoders; know parameters and no training
        "metrics": 2,  # Mean and scores: batch, text, audio
        "optimizer": 2,  # any optimizer of optax with the options around it: config, runtime
        "sharding": 2,  # where arrays are stored: runtime
        "checkpoint": 2,  # any pytree, and where a run is: distributed, schedules
        "callbacks": 2,  # what happens alongside training: config
        "component": 3,  # the contract: batch, metrics, runtime
        "data": 4,  # dataset to device: component, sharding
        "state": 4,  # what a step changes: component, optimizer
        "step": 5,  # the steps: state
        "loop": 6,  # the order of events
        "components": 6,  # ready components; know the contract and no loop
        "export": 7,  # a trained component for processes without medjax
        "recipes": 7,  # what examples and commands share: parts of corpora, reports
        "cli": 8,  # commands over all rooms
        "__main__": 9,  # the command line
        "__init__": 10,  # the facade; nothing imports it
    },
    "medjax_torch": {
        "torch_internals": 0,  # the private parts of torch
        "checkpoints": 0,  # files of a checkpoint that torch reads
        "options": 0,  # what medkit's configuration lacks
        "callbacks": 0,  # medkit's module
        "trainer_config": 0,  # medkit's module
        "utils": 0,  # medkit's module
        "component_state": 1,  # what a component holds and where; knows no other room
        "trainable_component": 1,  # medkit's module: utils
        "graph": 2,  # forward and backward as one graph: component_state
        "lowerings": 3,  # aten in JAX: graph
        "batches": 3,  # loaders, padding, arrays: graph
        "optimizers": 4,  # torch's optimizers in JAX: lowerings
        "verification": 4,  # JAX against torch: batches, lowerings
        "conversion": 5,  # a component as medjax's: optimizers, verification
        "session": 6,  # a run of a component: conversion
        "trainer": 7,  # medkit's class: session
        "__init__": 8,  # the facade; nothing imports it
    },
}
REPOSITORY = Path(medjax.__file__).parents[1]
ROOTS = {"medjax": REPOSITORY / "medjax", "medjax_torch": REPOSITORY / "interop" / "medjax_torch"}
FILES = sorted(path for root in ROOTS.values() for path in root.rglob("*.py"))


def name_of(path):
    """Return how tests of a file are called."""
    return str(path.relative_to(REPOSITORY))


def module_of(path):
    package = next(name for name, root in ROOTS.items() if path.is_relative_to(root))
    parts = path.relative_to(ROOTS[package]).with_suffix("").parts
    return ".".join((package, *(parts[:-1] if parts[-1] == "__init__" else parts)))


MODULES = {module_of(path): path for path in FILES}


def room_of(module):
    return module.split(".")[1] if "." in module else "__init__"


def imports_of(path):
    """Return the modules of its own package that a file imports, wherever in it."""
    imported = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            imported |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} has a relative import"
            for alias in node.names:
                module = f"{node.module}.{alias.name}"
                imported.add(module if module in MODULES else node.module)
    package = module_of(path).split(".")[0]
    return {name for name in imported if name.split(".")[0] == package}


@pytest.mark.parametrize("package", RANKS)
def test_every_room_has_a_rank(package):
    rooms = {room_of(module) for module in MODULES if module.split(".")[0] == package}
    assert rooms == set(RANKS[package])


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_a_room_imports_lower_rooms_only(path):
    module = module_of(path)
    room, ranks = room_of(module), RANKS[module.split(".")[0]]
    for imported in imports_of(path):
        assert imported in MODULES, f"{path} imports {imported}, which is not there"
        other = room_of(imported)
        assert other == room or ranks[other] < ranks[room], (
            f"{name_of(path)} (rank {ranks[room]}) imports {imported} (rank {ranks[other]})"
        )


def test_medjax_does_not_know_the_drop_in():
    for path in ROOTS["medjax"].rglob("*.py"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module] if isinstance(node, ast.ImportFrom) else []
            assert not any(name.split(".")[0] in {"medjax_torch", "torch"} for name in names), path


def test_no_module_imports_itself_over_others():
    edges = {
        module: {
            name
            for name in imports_of(path)
            # a package's facade is for the other rooms; within the package it would be a circle
            if name != module
        }
        for module, path in MODULES.items()
    }
    done, active = set(), []

    def visit(module):
        assert module not in active, " -> ".join([*active[active.index(module) :], module])
        if module in done:
            return
        active.append(module)
        for name in sorted(edges[module]):
            visit(name)
        active.pop()
        done.add(module)

    for module in edges:
        visit(module)


def run_python(code):
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def test_importing_medjax_loads_no_other_framework_and_starts_nothing():
    loaded = run_python(
        "import sys, jax, threading\n"
        "before = dict(jax.config.values), threading.active_count()\n"
        "import medjax\n"
        "after = {name: jax.config.values[name] for name in before[0]}  # JAX adds some lazily\n"
        "assert (after, threading.active_count()) == before\n"
        "from jax._src import xla_bridge\n"
        "assert not xla_bridge._backends, xla_bridge._backends\n"
        "print(*{name.split('.')[0] for name in sys.modules})"
    )
    forbidden = {
        "torch",
        "transformers",
        "tensorflow",
        "medkit",
        "matplotlib",
        "tokenizers",
        "sklearn",
        "tensorboardX",
    }
    assert not forbidden & set(loaded)
    assert "jax" in loaded


def at_import(node):
    """Yield the nodes that run when a module is imported: all but the bodies of functions."""
    for child in ast.iter_child_nodes(node):
        if not isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            yield child
            yield from at_import(child)


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_no_module_reads_the_environment_when_it_is_imported(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    names = {getattr(node, "attr", getattr(node, "id", None)) for node in at_import(tree)}
    assert not names & {"environ", "getenv"}


OTHERS = [p for d in ("benchmarks", "examples", "tests") for p in (REPOSITORY / d).rglob("*.py")]


@pytest.mark.parametrize("path", [*FILES, *sorted(OTHERS)], ids=lambda path: path.name)
def test_no_call_packs_its_arguments_to_please_the_formatter(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    packed = [
        argument.lineno
        for call in ast.walk(tree)
        if isinstance(call, ast.Call)
        for argument in call.args
        if isinstance(argument, ast.Starred) and isinstance(argument.value, ast.Tuple | ast.List)
    ]
    assert not packed, f"{path.name} has f(*(a, b)) in the lines {packed}; write f(a, b)"
