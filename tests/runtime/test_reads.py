"""Fingerprints of what functions read from outside: equal until something changes."""

import argparse
import array
import collections
import enum
import functools
import importlib
import sys
import types

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from medjax.runtime.reads import reads, remembers_traces

SCALE = {"loss": 1.0}
settings = types.ModuleType("settings_of_a_test")
settings.alpha = 0.5
sys.modules[settings.__name__] = settings
project = types.ModuleType("project_of_a_test")
project.inner = settings
project.itself = project


class Kind(enum.Enum):
    MEAN = "mean"
    SUM = "sum"


class Slotted:
    __slots__ = ("alpha",)

    def __init__(self):
        self.alpha = 0.1

    def forward(self, x):
        return x * self.alpha


class Base:
    temperature = 1.0

    def soften(self, x):
        return x / self.temperature


class Model(Base):
    def __init__(self):
        self.alpha = 0.1
        self.kind = Kind.MEAN
        self.layers = [{"rate": 0.1}, {"rate": 0.2}]
        self.weights = np.ones(3, np.float32)
        self.table = jnp.ones(3)

    def forward(self, x):
        return jnp.sum(self.soften(x) * self.alpha) * SCALE["loss"]


class Scaled(dict):
    pass


class Listed(list):
    __slots__ = ("alpha",)


class Module(nn.Module):
    @nn.compact
    def __call__(self, x):
        return x * SCALE["loss"]


def contents():
    """Return, by name, functions that read values of other kinds, and what changes these."""
    tensor, raw, numbers = torch.ones(2), bytearray(b"ab"), array.array("d", [1.0])
    single, half = torch.tensor(1.0), torch.ones(3, dtype=torch.bfloat16)
    masked = np.ma.array([1.0, 2.0], mask=[False, False])
    items = np.array([{"rate": 0.1}] * 2000, object)
    scaled, listed = Scaled(a=1.0), Listed([1.0])
    scaled.alpha = listed.alpha = 0.1
    module = Module()

    @jax.custom_jvp
    def with_rule(x):
        return x

    def rule(primals, tangents):
        return primals[0], tangents[0] * SCALE["loss"]

    with_rule.defjvp(rule)

    def attribute(x):
        return x * attribute.scale

    attribute.scale = 1.0
    jitted = jax.jit(lambda x: x)
    jitted.scale = 1.0

    def change_scale():
        SCALE["loss"] += 1

    return {
        "attribute of a function": (attribute, lambda: setattr(attribute, "scale", 2.0)),
        "attribute of a jitted function": (jitted, lambda: setattr(jitted, "scale", 2.0)),
        "tensor": (lambda x: x * tensor, lambda: tensor.mul_(3)),
        "tensor without axes": (lambda x: x * single, lambda: single.mul_(3)),
        "tensor of bfloat16": (lambda x: x * half, lambda: half.mul_(3)),
        "bytearray": (lambda x: x * raw[0], lambda: raw.__setitem__(0, 5)),
        "array.array": (lambda x: x * numbers[0], lambda: numbers.__setitem__(0, 5.0)),
        "mask": (lambda x: x * masked.filled(0), lambda: masked.mask.__setitem__(0, True)),
        "array of objects": (lambda x: x * items[1000]["rate"], lambda: items[0].update(rate=2)),
        "attribute of a dict": (lambda x: x * scaled.alpha, lambda: setattr(scaled, "alpha", 2)),
        "attribute of a list": (lambda x: x * listed.alpha, lambda: setattr(listed, "alpha", 2)),
        "what __call__ reads": (lambda x: module.apply({}, x), change_scale),
        "what a rule of custom_jvp reads": (lambda x: with_rule(x), change_scale),
    }


def changes():
    """Return, by name, a function and another function that changes what it reads."""
    cell = [1.0]
    number = 1.0

    def closure(x):
        return x * cell[0]

    def nonlocal_number(x):
        return x * number

    def change_number():
        nonlocal number
        number = 2.0

    def nested(x):
        return [y * SCALE["loss"] for y in x] + (lambda: settings.alpha)()

    def default(x, rate=0.1, *, by=1):
        return x * rate + by

    def through_partial(x, options):
        return x * options["rate"]

    held = settings

    def through_package(x):
        return x * project.itself.inner.alpha

    def through_closure(x):
        return x * held.alpha

    def through_default(x, module=settings):
        return x * module.alpha

    def imported(x):
        import settings_of_a_test

        return x * settings_of_a_test.alpha

    def imported_from(x):
        from settings_of_a_test import alpha

        return x * alpha

    options = {"rate": 0.1}
    model, slotted, recent = Model(), Slotted(), collections.deque([1.0])
    arguments = argparse.Namespace(alpha=0.1)

    def of_arguments(x):
        return x * arguments.alpha + recent[0]

    jitted = jax.jit(closure)
    set_weights = functools.partial(model.weights.__setitem__, 1, 5.0)
    return {
        "closure": (closure, lambda: cell.__setitem__(0, 2.0)),
        "checkpoint": (jax.checkpoint(closure), lambda: cell.__setitem__(0, 2.0)),
        "jitted": (jitted, lambda: cell.__setitem__(0, 2.0)),
        "cell": (nonlocal_number, change_number),
        "global": (nested, lambda: SCALE.update(loss=SCALE["loss"] + 1)),
        "module": (nested, lambda: setattr(settings, "alpha", settings.alpha + 1)),
        **{
            function.__name__: (function, lambda: setattr(settings, "alpha", settings.alpha + 1))
            for function in (
                through_package,
                through_closure,
                through_default,
                imported,
                imported_from,
            )
        },
        "default": (default, lambda: setattr(default, "__defaults__", (0.2,))),
        "keyword": (default, lambda: default.__kwdefaults__.update(by=2)),
        "partial": (
            functools.partial(through_partial, options=options),
            lambda: options.update(rate=0.2),
        ),
        "slot": (slotted.forward, lambda: setattr(slotted, "alpha", 0.2)),
        "arguments": (of_arguments, lambda: setattr(arguments, "alpha", 0.2)),
        "deque": (of_arguments, lambda: recent.append(2.0)),
        "attribute": (model.forward, lambda: setattr(model, "alpha", 0.2)),
        "enum": (model.forward, lambda: setattr(model, "kind", Kind.SUM)),
        "nested attribute": (model.forward, lambda: model.layers[1].update(rate=0.3)),
        "class": (model.forward, lambda: setattr(Base, "temperature", Base.temperature + 1)),
        "numpy in place": (model.forward, set_weights),
        "jax array": (model.forward, lambda: setattr(model, "table", jnp.ones(3))),
        "global of a method": (model.forward, lambda: SCALE.update(loss=SCALE["loss"] + 1)),
    }


@pytest.mark.parametrize("name", changes() | contents())
def test_a_change_is_noticed(name):
    function, change = (changes() | contents())[name]
    before = reads(function)
    assert reads(function) == before
    change()
    assert reads(function) != before


def test_what_is_imported_relative_to_the_package_is_followed(tmp_path, monkeypatch):
    inner = tmp_path / "package_of_a_test" / "inner"
    inner.mkdir(parents=True)
    (inner.parent / "settings.py").write_text("SCALE = 1.0")
    (inner / "model.py").write_text(
        "def forward(x):\n    from ..settings import SCALE\n    return x * SCALE\n"
        "def other(x):\n    from .. import settings\n    return x * settings.SCALE\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    model = importlib.import_module("package_of_a_test.inner.model")
    for function in (model.forward, model.other):
        function(1.0)  # it has been imported
        before = reads(function)
        assert reads(function) == before
        sys.modules["package_of_a_test.settings"].SCALE += 1
        assert reads(function) != before


def test_an_attribute_with_the_name_of_a_module_is_no_import(monkeypatch):
    module = types.ModuleType("check_of_a_test")
    module.scale = module.alpha = 1.0
    monkeypatch.setitem(sys.modules, module.__name__, module)

    def forward(x):
        return x.check_of_a_test(x.scale)

    def importing(x):
        import check_of_a_test.alpha

        return x.scale * check_of_a_test.scale

    before = reads(forward), reads(importing)
    module.scale = 2.0
    assert reads(forward) == before[0]
    assert reads(importing) != before[1]


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """Return an installed package with a setting and more objects than are looked into."""
    folder = tmp_path / "site-packages" / "tables_of_a_test"
    folder.mkdir(parents=True)
    (folder / "__init__.py").write_text(
        "SCALE = [1.0]\nTABLES = [[n] for n in range(30_000)]\n"
        "def read(path):\n    return TABLES, path\n"
        "def scaled(x):\n    return x * SCALE[0]\n"
    )
    monkeypatch.syspath_prepend(folder.parent)
    yield importlib.import_module("tables_of_a_test")
    del sys.modules["tables_of_a_test"]


def test_of_an_installed_package_some_objects_are_followed_after_all_others(installed):
    setting = {"factor": [2.0]}

    class Component:
        def forward(self, x):
            return setting["factor"][0] * installed.scaled(x)

        def load(self, path):
            return installed.read(path)

    forward = Component().forward
    before = reads(forward)
    assert len(before) < 40_000  # each table, but not what is in it
    installed.SCALE[0] = 2.0
    found = reads(forward)
    assert found != before
    setting["factor"][0] = 3.0
    assert reads(forward) != found
    # One that defines the function is the user's own.
    assert len(reads(installed.read)) > 60_000


def test_training_changes_nothing_that_modules_of_flax_read():
    module = Module()

    def forward(x):
        return module.apply({}, x).sum()

    before = reads(forward)
    jax.jit(jax.grad(forward))(jnp.ones(3))
    assert reads(forward) == before


def test_tensors_without_an_array_are_compared_by_identity():
    for tensor in (torch.ones(2, device="meta"), torch.eye(2).to_sparse()):
        assert reads(tensor) == reads(tensor) != reads(tensor.clone())


def test_another_policy_of_a_checkpoint_is_noticed():
    def inner(x):
        return 2 * x

    policies = jax.checkpoint_policies
    first = jax.checkpoint(inner, policy=policies.dots_saveable)
    other = jax.checkpoint(inner, policy=policies.nothing_saveable)
    assert reads(first) == reads(first) != reads(other)


def test_functions_whose_traces_jax_remembers_are_found():
    def inner(x):
        return x * SCALE["loss"]

    for wrap in (jax.jit, jax.checkpoint, jax.custom_jvp):
        wrapped = wrap(inner)
        assert remembers_traces(lambda x, wrapped=wrapped: wrapped(x))
    where, cached = jnp.where, functools.lru_cache(inner)
    assert not remembers_traces(lambda x: cached(where(x, x, inner(x))))


def test_cycles_end():
    model = Model()
    model.inner = model
    model.layers.append(model.layers)
    assert reads(model.forward) == reads(model.forward)


def test_objects_beyond_the_limit_are_compared_by_identity():
    long = list(map(str, range(10)))
    many = [[number] for number in range(120_000)]

    def forward(x):
        return x, long, many

    before = reads(forward)
    assert reads(forward) == before
    many.append([1])
    assert reads(forward) != before  # the list itself comes before the limit
