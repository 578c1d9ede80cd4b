"""The house: which room may import which, and what importing medjax does not do."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import medjax

# A room is a module or a package of medjax. It imports rooms of a lower rank only; lazy imports
# and those for type checking count as well.
RANKS = {
    "config": 0,  # what a run is asked for
    "batch": 0,  # columns with one entry per row
    "text": 0,  # documents and entities
    "tagging": 0,  # BIO and its kin
    "columns": 0,  # what a metrics computer keeps, as JSON
    "plots": 0,  # histories as figures
    "preemption": 0,  # signals; knows jax and no room
    "schedules": 0,  # learning rates
    "compiled": 0,  # what was compiled, and memory that was out; knows jax and no room
    "compilation": 0,  # compiled programs on disk; knows jax and no room
    "distributed": 0,  # many processes: found, agreed, ended together; knows jax and no room
    "lent": 0,  # functions held without being owned; knows no room
    "reads": 0,  # what functions read from outside; knows no room
    "heap": 0,  # memory that the process keeps; knows jax and no room
    "models": 0,  # encoders; know parameters and no training
    "alignment": 1,  # entities to tokens: tagging, text
    "readers": 1,  # files to documents: tagging, text
    "metrics": 1,  # Mean and scores: batch, tagging
    "optimizer": 1,  # any optimizer of optax with the options around it: config
    "sharding": 1,  # where a batch lies: batch, heap
    "checkpoint": 1,  # any pytree and a JSON record: distributed
    "callbacks": 1,  # what happens beside training: config
    "progress": 2,  # where a run is: checkpoint, columns, schedules
    "component": 2,  # the contract: batch, metrics
    "data": 3,  # dataset to device: component, sharding
    "state": 3,  # what a step changes: component
    "scores": 4,  # outputs to scores: data
    "step": 4,  # the only place that compiles: state
    "monitor": 5,  # what the host knows of the steps: step
    "loop": 6,  # the order of events
    "components": 6,  # ready components; know the contract and no loop
    "__init__": 7,  # the facade; nothing imports it
}
ROOT = Path(medjax.__file__).parent
FILES = sorted(path.relative_to(ROOT) for path in ROOT.rglob("*.py"))


def module_of(path):
    parts = path.with_suffix("").parts
    return ".".join(("medjax", *(parts[:-1] if parts[-1] == "__init__" else parts)))


MODULES = {module_of(path): path for path in FILES}


def room_of(module):
    return module.split(".")[1] if "." in module else "__init__"


def imports_of(path):
    """Return the modules of medjax that a file imports, wherever in it."""
    found = set()
    for node in ast.walk(ast.parse((ROOT / path).read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} has a relative import"
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                found.add(whole if whole in MODULES else node.module)
    return {name for name in found if name.split(".")[0] == "medjax"}


def test_every_room_has_a_rank():
    assert {room_of(module) for module in MODULES} == set(RANKS)


@pytest.mark.parametrize("path", FILES, ids=str)
def test_a_room_imports_lower_rooms_only(path):
    room = room_of(module_of(path))
    for imported in imports_of(path):
        assert imported in MODULES, f"{path} imports {imported}, which is not there"
        other = room_of(imported)
        assert other == room or RANKS[other] < RANKS[room], (
            f"medjax/{path} (rank {RANKS[room]}) imports {imported} (rank {RANKS[other]})"
        )


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
        [sys.executable, "-c", code], cwd=ROOT.parent, capture_output=True, text=True, check=False
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


@pytest.mark.parametrize("path", FILES, ids=str)
def test_no_module_reads_the_environment_when_it_is_imported(path):
    tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
    names = {getattr(node, "attr", getattr(node, "id", None)) for node in at_import(tree)}
    assert not names & {"environ", "getenv"}


SOURCES = [
    path for root in ("medjax", "interop") for path in sorted((ROOT.parent / root).rglob("*.py"))
]


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT.parent)))
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
