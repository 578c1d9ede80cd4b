"""`torch.distributions` in forward, and the deprecated weight norms, which use hooks."""

import jax
import numpy as np
import pytest
import torch
from medkit_runs import largest_difference
from torch import distributions, nn
from torch.nn import functional as F
from trained import DATA, Classifier, make

from medjax_torch import BatchData
from medjax_torch.conversion import ConvertedComponent
from medjax_torch.lowerings import run
from medjax_torch.verification import verify

ones = torch.ones(20_000)

DISTRIBUTIONS = {
    "Beta": lambda: distributions.Beta(0.4 * ones, 1.5),
    "Gamma": lambda: distributions.Gamma(3.0 * ones, 2.0),
    "Dirichlet": lambda: distributions.Dirichlet(torch.tensor([1.0, 2.0, 3.0]).expand(9000, 3)),
    "Normal": lambda: distributions.Normal(ones, 2.0),
    "LogNormal": lambda: distributions.LogNormal(0.5 * ones, 0.3),
    "Exponential": lambda: distributions.Exponential(2 * ones),
    "Laplace": lambda: distributions.Laplace(ones, 2.0),
    "Gumbel": lambda: distributions.Gumbel(ones, 2.0),
    "Chi2": lambda: distributions.Chi2(3 * ones),
    "Uniform": lambda: distributions.Uniform(-ones, 3 * ones),
    "Bernoulli": lambda: distributions.Bernoulli(0.3 * ones),
    "Categorical": lambda: distributions.Categorical(torch.tensor([0.1, 0.6, 0.3]).expand(9000, 3)),
    "Poisson": lambda: distributions.Poisson(4 * ones),
    "Binomial": lambda: distributions.Binomial(10, 0.3 * ones),
    "Geometric": lambda: distributions.Geometric(0.3 * ones),
}


def converted(function):
    module = nn.Linear(1, 1)

    def call(batch, eval_mode):
        drawn = function(module)
        return {"drawn": drawn}, drawn.float().mean() * module.weight.sum()

    component = ConvertedComponent(module, call, max_variants=8)
    batch = {"x": torch.zeros(1)}
    return component, component.graph_of(batch, train=True), batch


@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_samples_have_the_moments_of_the_distribution(name):
    component, key, batch = converted(lambda _: DISTRIBUTIONS[name]().sample())
    graph = component.graph(key)
    inputs = [t.detach().numpy() for t in graph.inputs(component.inventory.tensors, batch)]
    values = run(graph.module, inputs, jax.random.key(1), component.constants(key))
    (drawn,) = graph.results(values).outputs
    expected = DISTRIBUTIONS[name]()
    if name == "Categorical":
        drawn, mean, variance = np.asarray(drawn) == 1, 0.6, 0.24
    else:
        mean, variance = expected.mean.mean(0).numpy(), expected.variance.mean(0).numpy()
    deviation = np.sqrt(variance / len(drawn))
    assert np.all(np.abs(np.mean(drawn, 0) - mean) < 5 * deviation)
    assert np.allclose(np.var(drawn, 0), variance, rtol=0.15)


@pytest.mark.parametrize(
    "draw",
    [
        lambda w: distributions.Gamma(w.square() + 1, 2.0).rsample((50,)),
        lambda w: distributions.Normal(w, w.exp()).rsample((50,)),
        lambda w: distributions.LogNormal(w, 0.1).rsample((50,)),
        lambda w: distributions.Normal(w, 1.0).log_prob(w.detach() + 1),
    ],
)
def test_gradients_of_distributions_equal_torchs(draw):
    component, key, batch = converted(lambda module: draw(module.weight))
    call = component.call_on(batch, train=True)
    graph, constants = component.graph(key), component.constants(key)
    assert verify(call, component.inventory, batch, graph, constants).relative < 1e-3
    assert graph.guards == ()


class Mixed(Classifier):
    """Mixup with weights from a Beta distribution."""

    def forward(self, batch, return_loss, eval_mode):
        self.model.train(not eval_mode)
        x = batch["x"]
        if eval_mode:
            return BatchData(), F.cross_entropy(self.model(x), batch["y"])
        part = distributions.Beta(0.4, 0.4).sample()
        order = torch.randperm(len(x))
        logits = self.model(part * x + (1 - part) * x[order])
        loss = part * F.cross_entropy(logits, batch["y"])
        return BatchData(), loss + (1 - part) * F.cross_entropy(logits, batch["y"][order])


def test_mixup_by_beta_trains(tmp_path):
    history = make(tmp_path, Mixed(), nb_training_epochs=2).train()
    assert history[-1]["eval"]["loss"] < history[0]["eval"]["loss"]


class Normed(Classifier):
    def __init__(self, norm):
        super().__init__(optimizer=torch.optim.SGD)
        for layer in (self.model[0], self.model[3]):
            norm(layer)


@pytest.mark.filterwarnings("ignore:.*weight_norm.*:FutureWarning")
@pytest.mark.parametrize("norm", [nn.utils.spectral_norm, nn.utils.weight_norm])
def test_hook_based_norms_equal_torchs(tmp_path, norm, caplog):
    made = lambda: Normed(norm)  # noqa: E731
    assert largest_difference(tmp_path, made, DATA, DATA[:12], batch_size=8) < 1e-5
    assert "forward leaves" not in caplog.text
