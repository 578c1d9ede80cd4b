"""A traced graph computes what torch computes: losses, gradients, outputs, state."""

import copy

import pytest
import torch
from graph_cases import Component, check, close, compare, eager, run, traced
from torch import nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from medjax_torch.component_state import find
from medjax_torch.graph import Rules, columns, trace


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


@pytest.fixture
def batch():
    return {
        "x": torch.randn(4, 3),
        "y": torch.randn(4, 2),
        "ids": torch.tensor([[1, 2, 0], [3, 0, 0], [4, 4, 1], [2, 2, 2]]),
    }


def regression(self, batch):
    outputs = self.model(batch["x"])
    return {"outputs": outputs}, functional.mse_loss(outputs, batch["y"])


@pytest.mark.parametrize("train", [True, False])
def test_batch_norm(batch, train):
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))
    graph = check(Component(regression, model=model), batch, train)
    running = ("model.1.running_mean", "model.1.running_var", "model.1.num_batches_tracked")
    assert graph.updated == (running if train else ())
    assert graph.buffers == (running if train else running[:2])
    assert graph.columns == ("x", "y")
    assert graph.trained == (graph.gradients if train else ())
    assert len(graph.frozen) == (0 if train else 6)
    assert graph.effects == ()


def test_recurrent_layers_with_a_sparse_embedding(batch):
    def forward(self, batch):
        outputs, _ = self.rnn(self.embed(batch["ids"]))
        return {"last": outputs[:, -1]}, outputs.pow(2).mean()

    rnn = nn.LSTM(4, 3, bidirectional=True, batch_first=True)
    check(Component(forward, embed=nn.Embedding(5, 4, sparse=True), rnn=rnn), batch)


def test_attention_in_both_modes(batch):
    def forward(self, batch):
        hidden = self.embed(batch["ids"])
        outputs = self.layer(hidden, src_key_padding_mask=batch["ids"] == 0)
        return {"outputs": outputs}, outputs.pow(2).mean()

    layer = nn.TransformerEncoderLayer(4, 2, 8, dropout=0.0, batch_first=True)
    component = Component(forward, embed=nn.Embedding(5, 4, padding_idx=0), layer=layer)
    check(component, batch)
    check(component, batch, train=False)


class Reverse(torch.autograd.Function):
    @staticmethod
    def forward(ctx, value):
        return value.clone()

    @staticmethod
    def backward(ctx, gradient):
        return -0.5 * gradient


def no_grad(self, hidden):
    with torch.no_grad():
        scale = hidden.abs().mean()
    return hidden * scale


def through_view(self, hidden):
    hidden = hidden.clone()
    hidden.view(-1)[1:3] = 0
    hidden.t()[0].mul_(2)
    return hidden


def tensor_hook(self, hidden):
    hidden.register_hook(lambda gradient: gradient.clamp(-0.01, 0.01))
    return hidden * 2


def write_data(self, hidden):
    hidden = hidden * 1
    hidden.data.clamp_(min=0)
    return hidden * hidden


def reentrant(self, hidden):
    return checkpoint(lambda value: torch.tanh(value) * 2, hidden, use_reentrant=True)


@pytest.mark.parametrize(
    "middle",
    [
        no_grad,
        through_view,
        tensor_hook,
        write_data,
        reentrant,
        lambda self, hidden: hidden.detach() + hidden,
        lambda self, hidden: hidden * hidden.data,
        lambda self, hidden: Reverse.apply(hidden),
        lambda self, hidden: checkpoint(torch.sin, hidden, use_reentrant=False),
        lambda self, hidden: hidden * torch.tensor([2.0, 3.0]) + torch.arange(2),
        lambda self, hidden: hidden / hidden.norm().item(),
        lambda self, hidden: hidden @ functional.one_hot(torch.tensor([0, 1]), 2).float(),
    ],
    ids=lambda f: f.__name__,
)
def test_idioms(batch, middle):
    def forward(self, batch):
        outputs = middle(self, self.model(batch["x"]))
        return {"outputs": outputs, "count": 3}, functional.mse_loss(outputs, batch["y"])

    graph = check(Component(forward, model=nn.Linear(3, 2)), batch)
    assert graph.guards == ()


def test_hooks_on_modules_and_parameters(batch):
    model = nn.Linear(3, 2)
    model.register_forward_hook(lambda module, inputs, outputs: outputs * 2)
    model.weight.register_hook(lambda gradient: gradient * 3)
    component = Component(regression, model=model)
    graph = traced(component, batch)
    # deepcopy, which `check` needs, drops hooks of tensors.
    outputs, loss = component.forward(batch, True, False)
    gradients = torch.autograd.grad(loss, list(model.parameters()))
    named = dict(zip(find(component).parameters, gradients, strict=True))
    compare(graph, component, batch, loss, named, outputs)


def test_a_hook_after_accumulation_is_refused(batch):
    model = nn.Linear(3, 2)
    model.bias.register_post_accumulate_grad_hook(print)
    with pytest.raises(RuntimeError, match=r"model\.bias has a hook that runs after"):
        traced(Component(regression, model=model), batch)


def test_frozen_and_unused_parameters(batch):
    model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
    model[0].requires_grad_(False)
    component = Component(regression, model=model, unused=nn.Linear(2, 2))
    graph = check(component, batch)
    assert graph.frozen == ("model.0.weight", "model.0.bias")
    assert graph.trained == graph.gradients == ("model.1.weight", "model.1.bias")


def test_tied_weights_have_one_gradient(batch):
    def forward(self, batch):
        logits = self.decoder(self.embed(batch["ids"]))
        return {"logits": logits}, functional.cross_entropy(
            logits.flatten(0, 1), batch["ids"].view(-1)
        )

    embed, decoder = nn.Embedding(5, 4), nn.Linear(4, 5)
    decoder.weight = embed.weight
    graph = check(Component(forward, embed=embed, decoder=decoder), batch)
    assert graph.trained == ("embed.weight", "decoder.bias")


def test_state_on_the_component_is_returned(batch):
    def forward(self, batch):
        loss = regression(self, batch)[1]
        self.mean = 0.9 * self.mean + 0.1 * loss.detach()
        self.history[0][0] += 1
        self.steps += 1
        return {}, loss * self.mean

    component = Component(
        forward,
        model=nn.Linear(3, 2),
        mean=torch.ones(()),
        history=[torch.zeros(2), torch.ones(1)],
        steps=0,
    )
    graph = check(component, batch)
    assert graph.updated == ("mean", "history.0")
    assert graph.buffers == ("mean", "history.0")
    assert [effect.path for effect in graph.effects] == ["steps"]
    assert component.steps == 0


def test_a_parameter_written_in_forward_is_returned(batch):
    def forward(self, batch):
        hidden = self.embed(batch["ids"])
        return {}, hidden.pow(2).mean()

    graph = check(Component(forward, embed=nn.Embedding(5, 4, max_norm=0.5)), batch)
    assert graph.updated == graph.trained == ("embed.weight",)


def test_what_forward_caches_is_neither_state_nor_left_behind(batch):
    def forward(self, batch):
        self.model.cache = self.model(batch["x"])
        self.last = self.model.cache[: batch["rows"]]
        self.model.register_buffer("fresh", torch.ones(1))
        return {}, self.model.cache.pow(2).mean()

    component = Component(forward, model=nn.Linear(3, 2), last=torch.ones(1))
    content = (set(vars(component)), set(vars(component.model)), set(component.model._buffers))
    graph = traced(component, {**batch, "rows": 2})
    assert graph.updated == graph.buffers == ()
    assert content == (
        set(vars(component)),
        set(vars(component.model)),
        set(component.model._buffers),
    )
    assert torch.equal(component.last, torch.ones(1))


def test_state_that_changes_its_shape_is_refused(batch):
    def forward(self, batch):
        self.seen = torch.cat([self.seen, batch["x"].mean().view(1)])
        return {}, self.model(batch["x"]).mean() * self.seen.sum()

    component = Component(forward, model=nn.Linear(3, 2), seen=torch.ones(1))
    with pytest.raises(RuntimeError, match="forward replaces seen with a tensor of another shape"):
        traced(component, batch)


def test_state_over_shared_memory_is_refused(batch):
    def forward(self, batch):
        self.total += 1
        return {}, self.model(batch["x"]).mean() * self.part.sum()

    total = torch.zeros(3)
    component = Component(forward, model=nn.Linear(3, 2), total=total, part=total[:2])
    with pytest.raises(RuntimeError, match="total changes in training and shares its memory"):
        traced(component, batch)


def test_the_batch_is_not_written_to(batch):
    def forward(self, batch):
        batch["x"].mul_(2)
        batch["nested"]["y"][0] = 1
        return {"x": batch["x"]}, self.model(batch["x"]).mean() + batch["nested"]["y"].sum()

    nested = {"x": batch["x"], "nested": {"y": batch["y"]}, "name": "a"}
    before = copy.deepcopy(nested)
    graph = check(Component(forward, model=nn.Linear(3, 2)), nested)
    assert graph.columns == ("x", "nested.y")
    assert torch.equal(before["x"], nested["x"])
    assert torch.equal(before["nested"]["y"], nested["nested"]["y"])


def draws(graph):
    return [
        node
        for node in graph.module.graph.nodes
        if torch.Tag.nondeterministic_seeded in getattr(node.target, "tags", ())
    ]


@pytest.mark.parametrize("use_reentrant", [True, False, None])
def test_dropout_is_drawn_in_the_graph(batch, use_reentrant):
    """Also under a checkpoint, where a second draw in backward would be another mask."""

    def forward(self, batch):
        hidden = self.model(batch["x"])
        if use_reentrant is None:
            hidden = functional.dropout(hidden, 0.5)
        else:
            hidden = checkpoint(functional.dropout, hidden, 0.5, use_reentrant=use_reentrant)
        return {"hidden": hidden}, hidden.sum()

    component = Component(forward, model=nn.Linear(3, 2))
    state = torch.get_rng_state()
    graph = traced(component, batch)
    assert torch.equal(torch.get_rng_state(), state)
    assert len(draws(graph)) == 1
    losses = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        results = run(graph, component, batch)
        losses.append(results.loss)
        # d sum(mask * (x w + b)) / db is the sum of the mask's rows.
        hidden = functional.linear(batch["x"], component.model.weight, component.model.bias)
        close(results.gradients["model.bias"], (results.outputs[0] / hidden).sum(0))
    assert losses[0] == losses[1] != losses[2]


def test_a_generator_of_the_components_own_becomes_the_steps_randomness(batch):
    def forward(self, batch):
        noise = torch.rand(3, generator=self.generator)
        return {}, (self.model(batch["x"] + noise)).mean()

    component = Component(forward, model=nn.Linear(3, 2), generator=torch.Generator())
    graph = traced(component, batch)
    assert [str(node.target) for node in draws(graph)] == ["aten.rand.default"]


def test_numbers_among_the_outputs_come_back(batch):
    def forward(self, batch):
        loss = self.model(batch["x"]).mean()
        return {"loss": loss.item(), "count": batch["ids"].sum().item(), "loss_name": "mean"}, loss

    graph = check(Component(forward, model=nn.Linear(3, 2)), batch)
    assert graph.guards == ()
    assert graph.outputs.names == ("loss", "count")


@pytest.mark.filterwarnings(
    # torch's own compiler, on its import.
    "ignore:`torch.jit.script_method` is deprecated:DeprecationWarning"
)
def test_a_compiled_module_is_traced_as_written(batch):
    component = Component(regression, model=nn.Linear(3, 2))
    expected = run(traced(component, batch), component, batch)
    component.model = torch.compile(component.model)
    actual = run(traced(component, batch), component, batch)
    close(actual.loss, expected.loss)
    assert actual.gradients.keys() == {"model._orig_mod.weight", "model._orig_mod.bias"}


def test_gradients_inside_of_forward(batch):
    def forward(self, batch):
        inputs = batch["x"].requires_grad_()
        outputs = self.model(inputs)
        slope, *_ = torch.autograd.grad(outputs.sum(), inputs, create_graph=True)
        return {}, slope.pow(2).sum() + outputs.sum()

    check(Component(forward, model=nn.Sequential(nn.Linear(3, 2), nn.Tanh())), batch)


def test_a_function_can_be_replaced(batch):
    def forward(self, batch):
        return {}, functional.mse_loss(self.model(batch["x"]), batch["y"])

    component = Component(forward, model=nn.Linear(3, 2))
    expected, *_ = eager(component, batch)
    rules = Rules(replacements={functional.mse_loss: lambda a, b, **_: 2 * (a - b).pow(2).mean()})
    graph = trace(
        lambda b: component.forward(b, True, False), find(component), batch, train=True, rules=rules
    )
    close(run(graph, component, batch).loss, 2 * expected)


def test_a_graph_serves_other_batches_of_its_signature(batch):
    component = Component(regression, model=nn.Sequential(nn.Linear(3, 2), nn.Tanh()))
    graph = traced(component, batch)
    other = {name: value.flip(0) * 2 for name, value in batch.items()}
    loss, gradients, outputs, _ = eager(component, other)
    compare(graph, component, other, loss, gradients, outputs)
    assert graph.inputs(find(component).tensors, columns(other))[-1] is other["y"]
