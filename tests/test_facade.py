"""Public names suffice: for custom loops, accumulation and evaluation, benchmarks and examples."""

import ast
import inspect
import typing
from pathlib import Path

import jax
import numpy as np
import optax
import pytest

import medjax

DRAW = np.random.default_rng(0)
POINTS = DRAW.normal(size=(24, 3)).astype(np.float32)
DATA = [{"x": x, "y": np.int32(x.sum() > 0)} for x in POINTS]


def classifier():
    """Return a linear classifier of points."""

    def init(key):
        return {"params": {"kernel": jax.random.normal(key, (3, 2))}}

    def collate(examples):
        names = ("x", "y")
        return medjax.BatchData({n: np.stack([e[n] for e in examples]) for n in names})

    def forward(variables, batch, key, *, return_loss, eval_mode):
        logits = batch["x"] @ variables["params"]["kernel"]
        outputs = medjax.BatchData(logits=logits)
        if not return_loss:
            return outputs, None, {}
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, batch["y"])
        return outputs, medjax.Mean.of(losses, batch[medjax.ROW_MASK]), {}

    return medjax.TrainableComponent(
        init=init,
        preprocess=lambda item: item,
        collate=collate,
        forward=forward,
        configure_optimizer=optax.adam,
        save=lambda path, variables: None,
        load=lambda path: {},
    )


def trained(tmp_path, options=None, **settings):
    config = medjax.TrainerConfig(
        output_dir=tmp_path, batch_size=5, nb_training_epochs=2, seed=3, **settings
    )
    result = medjax.train(classifier(), config, DATA, DATA[:8], options=options, callback=[])
    return result, config


@pytest.mark.parametrize("accumulation", [1, 2])
@pytest.mark.parametrize("window", [0, 100])
def test_a_custom_loop_equals_train(tmp_path, accumulation, window):
    options = medjax.Options(length_window=window)
    result, config = trained(
        tmp_path, options, learning_rate=0.1, gradient_accumulation_steps=accumulation
    )
    component = classifier()
    loader = medjax.get_dataloader(DATA, component, config, shuffle=True, seed=3, options=options)
    state = medjax.create_state(
        component,
        medjax.make_optimizer(component),
        seed=3,
        learning_rate=0.1,
        accumulates=accumulation > 1,
    )
    losses = medjax.EpochLoss if window else medjax.Mean
    state = state.replace(losses=losses.empty())
    train_step = medjax.make_train_step(state, accumulation=accumulation)
    for epoch in (1, 2):
        for number, batch in enumerate(loader.batches(epoch), 1):
            marked = medjax.with_update_due(batch.device, number == len(loader))
            state, stats = train_step(state, marked)
        if window:
            state = state.replace(losses=state.losses.next_epoch())
    assert isinstance(stats, medjax.StepStats)
    kernel = result.state.params["kernel"]
    np.testing.assert_array_equal(state.params["kernel"], kernel)

    eval_step = medjax.make_eval_step(component.forward)
    evaluated = medjax.get_dataloader(DATA[:8], component, config, shuffle=False)
    total = medjax.Mean.empty()
    for batch in evaluated.batches(0):
        loss, _ = eval_step(state.variables, batch.device)
        total = total.merge(loss)
    assert float(total.compute()) == pytest.approx(result.history[-1]["eval"]["loss"], rel=1e-6)


def test_a_step_takes_a_schedule_of_optax():
    component = classifier()
    optimizer = medjax.make_optimizer(component)
    state = medjax.create_state(component, optimizer, seed=0, learning_rate=1.0)
    step = medjax.make_train_step(state, schedule=optax.linear_schedule(0.0, 1.0, 10))
    batch = medjax.BatchData(
        x=POINTS[:4], y=np.zeros(4, np.int32), **{medjax.ROW_MASK: np.ones(4, np.float32)}
    )
    before = np.asarray(state.params["kernel"])
    state, _ = step(state, batch)
    np.testing.assert_array_equal(state.params["kernel"], before)  # its rate begins at 0


def test_a_loader_says_how_to_iterate(tmp_path):
    config = medjax.TrainerConfig(output_dir=tmp_path)
    loader = medjax.get_dataloader(DATA, classifier(), config, shuffle=True)
    with pytest.raises(TypeError, match=r"loader\.batches\(epoch\)"):
        iter(loader)


def named_types(annotation):
    """Yield the classes of medjax in an annotation."""
    if isinstance(annotation, type) and annotation.__module__.startswith("medjax"):
        yield annotation.__name__
    for part in typing.get_args(annotation):
        for each in part if isinstance(part, list) else [part]:
            yield from named_types(each)


MADE_BY_FUNCTIONS = {"CompiledStep", "DataLoader", "SeparateUpdate", "TrainState"}
"""Classes whose constructors users do not call: `make_train_step` and the like do."""


def callables(name):
    public = getattr(medjax, name)
    if inspect.isfunction(public):
        return [public]
    if not inspect.isclass(public):
        return []
    names = [n for n in vars(public) if not n.startswith("_")]
    names += [] if name in MADE_BY_FUNCTIONS else ["__init__"]
    methods = [vars(public).get(n) for n in names]
    return [m for m in methods if inspect.isfunction(m) and m.__module__.startswith("medjax")]


@pytest.mark.parametrize("name", medjax.__all__)
def test_what_a_public_signature_names_is_public(name):
    missing = {
        each
        for function in callables(name)
        for annotation in typing.get_type_hints(function).values()
        for each in named_types(annotation)
        if each not in medjax.__all__
    }
    assert not missing, f"medjax.{name} names {sorted(missing)}, which medjax does not export"


def test_dir_shows_what_is_meant_to_be_used():
    assert set(medjax.__all__) <= set(dir(medjax))


REPOSITORY = Path(medjax.__file__).parents[1]
SCRIPTS = sorted(
    p for room in ("benchmarks", "examples") for p in (REPOSITORY / room).rglob("*.py")
)
ROOTS = {"medjax": REPOSITORY, "medjax_torch": REPOSITORY / "interop"}
PUBLIC_MODULES = {
    "medjax": (
        "audio",
        "components",
        "export",
        "metrics",
        "models",
        "recipes",
        "sharding",
        "text",
        "text.readers",
        "text.writers",
    ),
    "medjax_torch": (
        "callbacks",
        "checkpoints",
        "options",
        "trainable_component",
        "trainer",
        "trainer_config",
        "utils",
    ),
}
"""The modules that users import from besides the facade of each package."""


def public_names(package, module):
    """Return the names that a module exports, read from its source; "" is the facade.

    They are its `__all__`, or else the classes and functions that it defines and what it imports
    under a name given by ``as``.
    """
    path = ROOTS[package].joinpath(package, *module.split("."))
    path = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    names = set()
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            return set(ast.literal_eval(node.value))
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            names.add(node.name)
        if isinstance(node, ast.ImportFrom):
            names |= {alias.asname for alias in node.names if alias.asname}
    return {name for name in names if not name.startswith("_")}


PUBLIC = {
    f"{package}.{module}".strip("."): public_names(package, module)
    for package, modules in PUBLIC_MODULES.items()
    for module in ("", *modules)
}


def private_uses(source):
    """Return the names of either package that a script uses and that are not public."""
    private = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            private |= {a.name for a in node.names if is_ours(a.name) and a.name not in PUBLIC}
        elif isinstance(node, ast.ImportFrom) and is_ours(node.module or ""):
            names = PUBLIC.get(node.module, set())
            private |= {f"{node.module}.{a.name}" for a in node.names if a.name not in names}
        elif isinstance(node, ast.Attribute) and (module := ast.unparse(node.value)) in PUBLIC:
            name = f"{module}.{node.attr}"
            private |= {name} if node.attr not in PUBLIC[module] and name not in PUBLIC else set()
    return private


def is_ours(module):
    return module.split(".")[0] in PUBLIC_MODULES


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: str(path.relative_to(REPOSITORY)))
def test_a_script_uses_public_names_only(path):
    private = private_uses(path.read_text(encoding="utf-8"))
    assert not private, f"{path} uses {sorted(private)}; expected names of {sorted(PUBLIC)}"


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("import medjax.state", "medjax.state"),
        ("from medjax.state import create_state", "medjax.state.create_state"),
        ("from medjax import jax_internals", "medjax.jax_internals"),
        ("import medjax\nmedjax.sharding.math", "medjax.sharding.math"),
        ("import medjax\nmedjax.data.Batch", "medjax.data"),
        ("from medjax_torch.session import Session", "medjax_torch.session.Session"),
        ("import medjax_torch\nmedjax_torch.graph.trace", "medjax_torch.graph"),
    ],
)
def test_a_private_name_in_a_script_is_noticed(source, name):
    assert private_uses(source) == {name}


def test_scripts_are_there():
    assert any(path.name == "overhead.py" for path in SCRIPTS)
    assert any(path.name == "clinical_ner.py" for path in SCRIPTS)
