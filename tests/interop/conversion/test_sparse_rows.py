"""SparseAdam updates the rows in torch's sparse gradient, including those with a gradient of 0."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from trained import Classifier, make

from medjax_torch import BatchData, Options
from medjax_torch.component_state import find, to_numpy
from medjax_torch.conversion.tracing_rules import tracing_rules
from medjax_torch.graph import trace
from medjax_torch.lowerings import run

DRAW = np.random.default_rng(0)
ROWS = DRAW.integers(0, 12, (24, 4))
ITEMS = [
    # Tokens 5 to 8 do not contribute to the loss: they are looked up and get a gradient of 0.
    {"ids": row.tolist(), "tags": [-100 if 5 <= i <= 8 else i % 3 for i in row.tolist()]}
    for row in ROWS
]


class Words(Classifier):
    """Tags each word independently; words without a tag are ignored."""

    def __init__(self, optimizer=torch.optim.SparseAdam, **table):
        super().__init__()
        torch.manual_seed(1)
        self.model = nn.Embedding(14, 3, sparse=True, **table)
        self.optimizer = optimizer

    def configure_optimizer(self, lr):
        return self.optimizer(self.model.parameters(), lr=lr)

    def collate(self, examples):
        return BatchData(
            ids=torch.tensor([e["ids"] for e in examples]),
            tags=torch.tensor([e["tags"] for e in examples]),
        )

    def forward(self, batch, return_loss, eval_mode):
        scores = self.model(batch["ids"])
        return BatchData(scores=scores), F.cross_entropy(scores.mT, batch["tags"])


class Stirred(Words):
    """Ignored words contribute in every second batch, so their moments are not 0 in the others."""

    def collate(self, examples):
        batch = super().collate(examples)
        if len(examples) == 4 and examples[0]["ids"][0] % 2:
            batch["tags"] = batch["ids"] % 3
        return batch


def by_torch(component, epochs, seed, folder):
    training = pytest.importorskip("medkit.training")
    config = training.TrainerConfig(
        output_dir=folder, learning_rate=0.05, nb_training_epochs=epochs, batch_size=4, seed=seed
    )
    training.Trainer(component, config, ITEMS, ITEMS[:8], callback=Silent()).train()
    return component.model.weight.detach().clone()


class Silent:
    def __getattr__(self, name):
        if not name.startswith("on_"):
            raise AttributeError(name)
        return lambda *args, **kwargs: None


@pytest.mark.parametrize("table", [{}, {"padding_idx": 3}], ids=["all", "padding_idx"])
def test_rows_with_a_zero_gradient_are_updated(tmp_path, table):
    ours = Stirred(**table)
    trainer = make(
        tmp_path / "ours",
        ours,
        train=ITEMS,
        evaluated=ITEMS[:8],
        batch_size=4,
        learning_rate=0.05,
        options=Options(order="medkit"),
    )
    trainer.train()
    expected = by_torch(Stirred(**table), 3, 3, tmp_path / "theirs")
    assert (ours.model.weight - expected).abs().max() < 2e-6
    moved = (ours.model.weight - Stirred(**table).model.weight).abs().amax(1)
    assert (moved[:12] > 1e-3).sum() >= 10
    assert not moved[12:].any()


LOOKUPS = [
    lambda table, ids: F.embedding(ids, table, sparse=True),
    lambda table, ids: F.embedding(ids, table, 3, sparse=True),
    lambda table, ids: F.embedding(ids, table, -11, None, 2.0, False, True),
    lambda table, ids: torch.embedding(table, ids, -1, False, True),
    lambda table, ids: F.embedding_bag(ids, table, mode="sum", sparse=True),
    lambda table, ids: F.embedding_bag(ids, table, mode="mean", sparse=True, padding_idx=3),
    lambda table, ids: (
        F.embedding(ids, table, sparse=True) + F.embedding(ids + 1, table, sparse=True)
    ),
]


@pytest.mark.parametrize("lookup", LOOKUPS)
def test_marked_rows_equal_those_that_torch_lists(lookup):
    class Table:
        def __init__(self):
            torch.manual_seed(0)
            self.model = nn.ParameterList([nn.Parameter(torch.randn(14, 3))])

    ids = torch.tensor([[1, 2, 2, 3], [3, 4, 9, 9]])

    def call(component):
        def forward(batch):
            vectors = lookup(component.model[0], batch["ids"])
            # Half of the lookups do not contribute to the loss.
            return {}, (vectors[:1] ** 2).sum() + 0 * vectors.sum()

        return forward

    table = Table()
    _, loss = call(table)({"ids": ids})
    loss.backward()
    gradient = table.model[0].grad.coalesce()
    listed = np.isin(np.arange(14), gradient.indices().numpy())

    traced_table = Table()
    inventory = find(traced_table)
    rules = tracing_rules(marks_rows=True)
    graph = trace(call(traced_table), inventory, {"ids": ids}, train=True, rules=rules)
    state = {name: to_numpy(value) for name, value in inventory.tensors.items()}
    constants = {name: to_numpy(value) for name, value in graph.constants.items()}
    values = run(graph.module, graph.inputs(state, {"ids": ids.int().numpy()}), None, constants)
    ours = np.asarray(next(iter(graph.results(values).gradients.values())))
    np.testing.assert_array_equal((ours != 0).any(1), listed)
    np.testing.assert_allclose(ours, gradient.to_dense(), rtol=1e-6, atol=1e-20)


@pytest.mark.filterwarnings("ignore:Sparse invariant checks are implicitly disabled")
@pytest.mark.parametrize("optimizer", [torch.optim.SGD, torch.optim.Adagrad])
def test_other_optimizers_see_no_marks(tmp_path, optimizer):
    ours = Words(optimizer)
    trainer = make(
        tmp_path / "ours",
        ours,
        train=ITEMS,
        evaluated=ITEMS[:8],
        batch_size=4,
        learning_rate=0.05,
        options=Options(order="medkit"),
    )
    trainer.train()
    expected = by_torch(Words(optimizer), 3, 3, tmp_path / "theirs")
    assert (ours.model.weight - expected).abs().max() < 1e-6
    start = Words(optimizer).model.weight
    assert torch.equal(ours.model.weight[5:9], start[5:9])


class Halved(Words):
    def __init__(self, dtype):
        super().__init__()
        self.model.to(dtype)

    def forward(self, batch, return_loss, eval_mode):
        scores = self.model(batch["ids"]).float()
        return BatchData(scores=scores), F.cross_entropy(scores.mT, batch["tags"])


def test_tables_of_float16_are_refused(tmp_path):
    """In torch the row that was looked up in vain is NaN then."""
    table = nn.Embedding(3, 2, sparse=True, dtype=torch.float16)
    optimizer = torch.optim.SparseAdam(table.parameters())
    (0 * table(torch.tensor([1])).float()).sum().backward()
    optimizer.step()
    assert table.weight[1].isnan().all()
    trainer = make(tmp_path, Halved(torch.float16), train=ITEMS, evaluated=ITEMS[:8])
    with pytest.raises(ValueError, match=r"model\.weight is float16, and SparseAdam divides"):
        trainer.train()


def test_tables_of_bfloat16_are_stepped_as_in_torch(tmp_path):
    ours = Halved(torch.bfloat16)
    make(
        tmp_path / "ours",
        ours,
        train=ITEMS,
        evaluated=ITEMS[:8],
        batch_size=4,
        learning_rate=0.05,
        options=Options(order="medkit"),
    ).train()
    expected = by_torch(Halved(torch.bfloat16), 3, 3, tmp_path / "theirs")
    # Ours is rounded once an update, torch's at each of its operations.
    assert (ours.model.weight - expected).abs().max() < 0.04
