"""Finding, naming, swapping, restoring, reading and writing the tensors of a component."""

import copy
import functools
from collections import OrderedDict, deque, namedtuple
from dataclasses import dataclass
from types import CellType

import ml_dtypes
import numpy as np
import pytest
import torch
from graph_cases import Component
from torch import nn

from medjax_torch.component_state import find, read, swapped, write_back
from medjax_torch.component_state.locations import (
    MISSING,
    Cell,
    Entry,
    Inherited,
    Member,
    OfClass,
)
from medjax_torch.component_state.modules import check_reachable, current
from medjax_torch.component_state.walk import walk
from medjax_torch.component_state.watch import Place, Places

Pair = namedtuple("Pair", "first second")


@dataclass(frozen=True)
class Frozen:
    layer: nn.Module


class Stop(Exception):  # noqa: N818
    pass


class Slotted:
    __slots__ = ("empty", "layer")

    def __init__(self, layer):
        self.layer = layer


class Nasty:
    """Has modules in every kind of place."""

    def __init__(self):
        shared = nn.Linear(2, 2)
        self.head = shared  # before the module that owns it
        self.model = nn.ModuleDict({"classifier": shared, "body": nn.LSTM(2, 2)})
        self.listed = [nn.Linear(1, 1), {"deep": (nn.Linear(1, 2), "text")}]
        self.pair = Pair(torch.ones(1), nn.Parameter(torch.ones(2)))
        self.queue = deque([nn.Linear(1, 3)])
        self.frozen = Frozen(nn.Linear(1, 4))
        self.slotted = Slotted(nn.Linear(1, 5))
        hidden = nn.Linear(1, 6)
        self.closure = lambda value: hidden(value)
        self.method = nn.Linear(1, 7).forward
        self.partial = functools.partial(print, layer=nn.Linear(1, 8))
        self.ordered = OrderedDict(layer=nn.Linear(1, 9))
        self.weights = torch.ones(3)
        self.alpha = torch.zeros(1, requires_grad=True)
        self.me = self
        self.listed.append(self.listed)


def test_tensors_are_found_in_every_place():
    nasty = Nasty()
    inventory = find(nasty)
    assert list(inventory.modules) == [
        "model",
        "listed.0",
        "listed.1.deep.0",
        "queue.0",
        "frozen.layer",
        "slotted.layer",
        "closure.hidden",
        "method",
        "partial.layer",
        "ordered.layer",
    ]
    assert "model.classifier.weight" in inventory.parameters
    assert "model.body.weight_ih_l0" in inventory.parameters
    assert inventory.parameters["pair.second"] is nasty.pair.second
    assert inventory.parameters["alpha"] is nasty.alpha
    assert set(inventory.buffers) == {"pair.first", "weights"}


def test_a_component_that_is_a_module_uses_torchs_names():
    model = nn.Sequential(nn.Linear(1, 1), nn.BatchNorm1d(1))
    inventory = find(model)
    assert list(inventory.tensors) == [
        *(name for name, _ in model.named_parameters()),
        *(name for name, _ in model.named_buffers()),
    ]


def test_ties_are_listed_once():
    embedding, decoder = nn.Embedding(3, 2), nn.Linear(2, 3, bias=False)
    decoder.weight = embedding.weight
    inventory = find(Component(print, encoder=embedding, decoder=decoder))
    assert list(inventory.parameters) == ["encoder.weight"]
    assert inventory.ties == {"encoder.weight": ("decoder.weight",)}
    assert len(inventory.locations["encoder.weight"]) == 2


def test_a_module_outside_of_torchs_registry_is_found():
    model = nn.Module()
    model.layers = [nn.Linear(1, 1)]
    assert set(find(Component(print, model=model)).parameters) == {
        "model.layers.0.weight",
        "model.layers.0.bias",
    }


def test_the_optimizers_parameters_must_be_reachable():
    component = Component(print, model=nn.Linear(1, 1))
    check_reachable(find(component), torch.optim.SGD(component.model.parameters(), lr=1.0))
    other = torch.optim.SGD(nn.Linear(2, 3).parameters(), lr=1.0)
    with pytest.raises(ValueError, match=r"group 0, of shape \(3, 2\), cannot be reached"):
        check_reachable(find(component), other)


def test_an_optimizer_on_the_component_adds_no_names():
    component = Component(print, model=nn.Linear(1, 1))
    component.optimizer = torch.optim.SGD(component.model.parameters(), lr=1.0)
    assert find(component).ties == {}


def test_a_tensor_or_module_that_is_a_key_is_named_by_its_position():
    keys = [nn.Parameter(torch.ones(2)), nn.Linear(1, 1), ("moment", torch.ones(3)), "plain"]
    state = {key: torch.zeros(2) for key in keys}
    component = Component(print, state=state)
    found = [path for path, _, _ in walk(component).tensors if path.startswith("state.")]
    names = ["state.Parameter 0", "state.Linear 1", "state.tuple 2", "state.plain"]
    assert found == names
    places = Places([Place("state", Entry(vars(component), "state"))])
    for key in keys:
        state[key] = torch.ones(2)
    assert [place.path for place in places.changed()] == names


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"model": nn.LazyLinear(2)}, "lazy module"),
        ({"partial": functools.partial(print, nn.Parameter(torch.ones(1)))}, "argument of a part"),
    ],
)
def test_unsupported_parameters_are_refused(content, message):
    with pytest.raises(ValueError, match=message):
        find(Component(print, **content))


def test_two_parameters_with_the_same_memory_are_refused():
    first, second = nn.Linear(2, 2), nn.Linear(2, 2)
    second.weight.data = first.weight.data
    with pytest.raises(ValueError, match=r"first\.weight and second\.weight are two parameters"):
        find(Component(print, first=first, second=second))


def state_of(inventory):
    return {
        path: list(dict.items(holder)) if isinstance(holder, dict) else copy.copy(holder)
        for path, holder in inventory.content.holders
        if isinstance(holder, dict | list | set)
    }


def same_state(left, right):
    assert left.keys() == right.keys()
    for path, before in left.items():
        pairs = zip(before, right[path], strict=True)
        for old, new in pairs:
            assert old is new or all(a is b for a, b in zip(old, new, strict=True)), path


def vandalise(nasty):
    """A component whose forward changes it in many ways."""
    lstm = nasty.model["body"]
    lstm.register_buffer("seen", torch.ones(1))
    lstm.cache = torch.ones(2)
    lstm._flat_weights.append(torch.ones(1))
    nasty.model.eval()
    nasty.model["classifier"].weight = nn.Parameter(torch.ones(2, 2))
    del nasty.model["classifier"].bias
    nasty.weights = nasty.weights + 1
    nasty.listed.pop()
    nasty.slotted.empty = 3
    nasty.slotted.layer = None
    nasty.new = 1
    nasty.ordered["second"] = 2
    nasty.queue.clear()
    nasty.pair = None
    lstm.register_forward_hook(print)


@pytest.mark.parametrize("fails", [False, True])
def test_swapped_restores_everything(fails):
    nasty = Nasty()
    inventory = find(nasty)
    before = state_of(inventory)
    originals = inventory.tensors
    other = {name: tensor.detach() + 1 for name, tensor in originals.items()}
    try:
        with swapped(inventory, other):
            assert nasty.head.weight is other["model.classifier.weight"]
            assert nasty.model["body"]._flat_weights[0] is other["model.body.weight_ih_l0"]
            assert nasty.pair == (other["pair.first"], other["pair.second"])
            assert isinstance(nasty.pair, Pair)
            assert nasty.weights is other["weights"]
            assert nasty.method.__self__.weight is other["method.weight"]
            vandalise(nasty)
            if fails:
                raise Stop
    except Stop:
        assert fails
    same_state(before, state_of(inventory))
    assert find(nasty).tensors.keys() == originals.keys()
    assert all(find(nasty).tensors[name] is tensor for name, tensor in originals.items())
    assert nasty.slotted.layer.weight is originals["slotted.layer.weight"]
    assert nasty.model.training
    copy.deepcopy(nasty.model)


def test_swapped_reports_python_values_that_changed():
    component = Component(print, model=nn.BatchNorm1d(2), steps=0, losses=[])
    with swapped(inventory := find(component), {}) as effects:
        component.steps += 1
        component.losses.append(0.5)
        component.model.eval()
        component.model.running_mean = torch.ones(2)
        assert (
            current(inventory, "model.running_mean", torch.ones(2)) is component.model.running_mean
        )
    assert [effect.path for effect in effects] == ["steps", "losses"]
    assert (component.steps, component.losses) == (0, [])


def test_one_of_two_places_assigned_is_an_error():
    module = nn.BatchNorm1d(2)
    component = Component(print, module=module, original=module.running_mean)
    inventory = find(component)
    placed = torch.zeros(2)
    with swapped(inventory, {"module.running_mean": placed}):
        module.running_mean = torch.ones(2)
        with pytest.raises(ValueError, match=r"module\.running_mean is in 2 places"):
            current(inventory, "module.running_mean", placed)


def test_read_and_write_never_alias():
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    model.half = torch.ones(2, dtype=torch.bfloat16)
    inventory = find(model)
    values = read(inventory)
    assert values["half"].dtype == ml_dtypes.bfloat16
    assert values["1.num_batches_tracked"].shape == ()
    pointer = model[0].weight.data_ptr()
    for name, value in values.items():
        value += 1
        assert not np.array_equal(read(inventory)[name], value)
    write_back(inventory, values)
    assert model[0].weight.data_ptr() == pointer
    for name, value in values.items():
        np.testing.assert_array_equal(read(inventory)[name], value)
        value += 1
        assert not np.array_equal(read(inventory)[name], value)


def test_write_converts_and_checks():
    model = nn.BatchNorm1d(2)
    model.row = torch.ones(1, 3).expand(2, 3)
    inventory = find(model)
    write_back(inventory, {"num_batches_tracked": np.int32(5), "row": np.ones((2, 3))})
    assert model.num_batches_tracked == 5
    with pytest.raises(ValueError, match=r"weight: .* \(3,\); expected \(2,\)"):
        write_back(inventory, {"weight": np.ones(3)})
    with pytest.raises(ValueError, match="no parameter or buffer 'wieght'"):
        write_back(inventory, {"wieght": np.ones(2)})
    with pytest.raises(ValueError, match="row: its elements share memory"):
        write_back(inventory, {"row": np.arange(6.0).reshape(2, 3)})


class Named:
    __slots__ = ("name",)


class Plain:
    name = "of the class"


def location(kind):
    return {
        "entry": Entry({}, "name"),
        "ordered entry": Entry(OrderedDict(), "name"),
        "member": Member(Named(), "name"),
        "of a class": OfClass(type("Own", (), {}), "name"),
        "inherited": Inherited(Plain(), "name"),
        "cell": Cell(CellType()),
    }[kind]


@pytest.mark.parametrize(
    "kind", ["entry", "ordered entry", "member", "of a class", "inherited", "cell"]
)
def test_a_location_can_be_emptied(kind):
    place = location(kind)
    empty = place.get()
    place.set(3)
    assert place.get() == 3
    for _ in range(2):
        place.set(MISSING)
        assert place.get() is empty
