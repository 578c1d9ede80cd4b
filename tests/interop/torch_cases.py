"""Test cases: small torch modules or functions, with inputs."""

from collections.abc import Callable

import torch
from torch import nn

CASES: dict[str, Callable[[], tuple[nn.Module, tuple[torch.Tensor, ...]]]] = {}


class Apply(nn.Module):
    """A function as a module."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, *inputs):
        return self.function(*inputs)


class Each(nn.Module):
    """The outputs of several modules for the same inputs."""

    def __init__(self, *modules):
        super().__init__()
        self.inner = nn.ModuleList(modules)

    def forward(self, *inputs):
        return [module(*inputs) for module in self.inner]


def f(*shape):
    return torch.randn(shape)


def ids(high, *shape):
    return torch.randint(high, shape)


def case(name, module, *inputs):
    """Add a case; `module` builds a module or is a function of tensors, `inputs` build tensors."""
    assert name not in CASES, name

    def build():
        torch.manual_seed(0)
        built = module()
        return built if isinstance(built, nn.Module) else Apply(built), tuple(i() for i in inputs)

    CASES[name] = build


def layer(name, module, *shape):
    case(name, module, lambda: f(*shape))


def idiom(name, function, *inputs):
    case(name, lambda: function, *inputs)
