"""By the convention for comparisons, torch and JAX draw the same."""

import jax
import numpy as np
import pytest
import torch
from torch.nn import functional as F
from torch_graphs import constants_of, functional_graph, to_jax

from medjax_torch.lowerings import run
from medjax_torch.lowerings.fixed_draws import has_fixed_value
from medjax_torch.lowerings.table import TABLE, Kind
from medjax_torch.reference import nothing_drawn

X = torch.linspace(-1, 2, 12).reshape(3, 4)
P = torch.linspace(0, 1, 12).reshape(3, 4)

DRAWS = {
    "dropout": lambda x: F.dropout(x, 0.3),
    "dropout by the default": lambda x: F.dropout(x, 0.5),
    "everything dropped": lambda x: F.dropout(x, 1.0),
    "native dropout": lambda x: torch.native_dropout(x, 0.25, True)[0],
    "feature dropout": lambda x: F.dropout1d(x, 0.4),
    "alpha dropout": lambda x: F.alpha_dropout(x, 0.4, True),
    "bernoulli": lambda x: torch.bernoulli(x.sigmoid()),
    "bernoulli of p": lambda x: torch.bernoulli(x, 0.7),
    "bernoulli in place": lambda x: x.clone().bernoulli_(P),
    "rand": lambda x: x + torch.rand(3, 4),
    "rand_like": torch.rand_like,
    "randn": lambda x: x + torch.randn(3, 4),
    "randn_like": torch.randn_like,
    "uniform": lambda x: x.clone().uniform_(-1, 3),
    "normal": lambda x: x.clone().normal_(1, 2),
    "normal of means": lambda x: torch.normal(x, 2.0),
    "normal of deviations": lambda x: torch.normal(1.0, x.abs()),
    "normal of both": lambda x: torch.normal(x, x.abs()),
    "exponential": lambda x: x.clone().exponential_(2.0),
    "randint": lambda x: x + torch.randint(2, 5, (4,)),
    "randint from zero": lambda x: x + torch.randint(5, (4,)),
    "randint_like": lambda x: torch.randint_like(x, 9),
    "randint_like from": lambda x: torch.randint_like(x, 3, 9),
    "randperm": lambda x: x + torch.randperm(4),
    "multinomial": lambda x: torch.multinomial(x.softmax(-1), 2),
    "multinomial with replacement": lambda x: torch.multinomial(x.softmax(-1), 6, True),
    "rrelu": lambda x: F.rrelu(x, training=True),
    "poisson": lambda x: torch.poisson(x.abs()),
}


@pytest.mark.parametrize("name", DRAWS)
def test_torch_and_jax_draw_the_same(name):
    before = torch.get_rng_state()
    with nothing_drawn():
        expected = DRAWS[name](X)
    assert torch.equal(before, torch.get_rng_state())
    graph = functional_graph(DRAWS[name], [X])
    (found,) = jax.tree.leaves(run(graph, [to_jax(X)], None, constants_of(graph)))
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_every_random_row_has_a_convention():
    rows = [target for target, row in TABLE.items() if row.kind is Kind.RANDOM]
    for target in rows:
        name = target._schema.name.partition("::")[2]
        special = ("native_dropout", "rrelu_with_noise_functional")
        assert has_fixed_value(name) or name in special
