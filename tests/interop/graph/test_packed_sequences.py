"""Packed sequences with lengths from the batch, compared with torch."""

import pytest
import torch
from medkit_runs import largest_difference
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import rnn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence
from trained import Classifier, make

from medjax_torch import BatchData
from medjax_torch.component_state import find
from medjax_torch.conversion import ConvertedComponent
from medjax_torch.conversion.tracing_rules import tracing_rules
from medjax_torch.graph import TraceError, bounds, check_ranges, columns, trace
from medjax_torch.lowerings.interpreter import MissingOperatorWarning
from medjax_torch.verification import verify

IDS = torch.randint(0, 20, (4, 6), generator=torch.Generator().manual_seed(0))
SORTED, UNSORTED = [[6, 4, 4, 1], [6, 5, 2, 2]], [[3, 6, 1, 3], [2, 6, 5, 2]]


class Packed(nn.Module):
    """A recurrent layer over packed embeddings."""

    def __init__(self, layer, lengths=lambda lengths: lengths, **options):
        super().__init__()
        torch.manual_seed(0)
        self.embedding, self.layer, self.head = nn.Embedding(20, 4), layer(), nn.Linear(20, 3)
        self.lengths, self.options = lengths, options

    def pack(self, x, batch):
        options = {"enforce_sorted": False, **self.options}
        total = options.pop("total_length", None)
        batch_first = self.layer.batch_first
        x = x if batch_first else x.transpose(0, 1)
        lengths = self.lengths(batch["lengths"])
        return pack_padded_sequence(x, lengths, batch_first=batch_first, **options), total

    def forward(self, batch):
        packed, total = self.pack(self.embedding(batch["ids"]), batch)
        packed, states = self.layer(packed)
        padded, lengths = pad_packed_sequence(
            packed, self.layer.batch_first, padding_value=0.5, total_length=total
        )
        states = states if isinstance(states, tuple) else (states,)
        loss = padded.square().sum() + sum((i + 1) * s.sin().sum() for i, s in enumerate(states))
        return {"padded": padded, "lengths": lengths, "states": list(states)}, loss


def agree(module, *lengths, train=True):
    """Compare every graph with torch on lengths other than the traced ones; return the graphs."""

    def call(batch, eval_mode):
        module.train(not eval_mode)
        return module(batch)

    converted = ConvertedComponent(module, call, max_variants=8)
    for values in lengths:
        batch = {"ids": IDS, "lengths": torch.tensor(values)}
        key = converted.graph_of(batch, train=train)
        graph, constants = converted.graph(key), converted.constants(key)
        verified = verify(
            converted.call_on(batch, train=train), converted.inventory, batch, graph, constants
        )
        assert verified.relative < 1e-5
    return converted.variants.graphs


LAYERS = {
    "LSTM": lambda: nn.LSTM(4, 3, 2, bidirectional=True, batch_first=True, dropout=0.4),
    "LSTM projected": lambda: nn.LSTM(4, 3, proj_size=2, bidirectional=True),
    "GRU": lambda: nn.GRU(4, 3, 2, bidirectional=True, bias=False),
    "RNN": lambda: nn.RNN(4, 3, 2, batch_first=True, dropout=0.3),
    "RNN relu": lambda: nn.RNN(4, 3, nonlinearity="relu"),
}


@pytest.mark.parametrize(
    "name",
    [name if name == "LSTM" else pytest.param(name, marks=pytest.mark.slow) for name in LAYERS],
)
def test_one_graph_equals_torch_for_all_lengths(name):
    for train in (True, False):
        (graph,) = agree(Packed(LAYERS[name]), *UNSORTED, train=train)
        assert not graph.effects


def slow(*values):
    return pytest.param(*values, marks=pytest.mark.slow)


@pytest.mark.parametrize(
    ("lengths", "options"),
    [
        (lambda lengths: lengths, {"enforce_sorted": True}),
        slow(lambda lengths: lengths.tolist(), {"enforce_sorted": True}),
        (lambda lengths: lengths.tolist(), {}),
        slow(lambda lengths: list(lengths.unbind(0)), {}),
        slow(lambda lengths: lengths.cpu(), {"total_length": 8}),
        slow(lambda lengths: (torch.arange(6) < lengths[:, None]).sum(1), {}),
    ],
    ids=["sorted", "sorted list", "list", "list of tensors", "total length", "of a mask"],
)
def test_lengths_may_come_in_any_form(lengths, options):
    cases = SORTED if options.get("enforce_sorted") else UNSORTED
    (graph,) = agree(Packed(LAYERS["GRU"], lengths, **options), *cases)
    # The only remaining decision is whether the longest row fills the batch.
    assert len(graph.guards) == ("total_length" not in options)


@pytest.mark.parametrize("ordered", [lambda n: n.sort(descending=True), lambda n: n.topk(4)])
def test_lengths_that_forward_sorts_are_checked_on_the_host(ordered):
    component = Packed(LAYERS["RNN"], lambda n: ordered(n)[0], enforce_sorted=True, total_length=6)
    (graph,) = agree(component, *UNSORTED)
    check_ranges(bounds(graph), {"ids": IDS, "lengths": torch.tensor(UNSORTED[0])})
    with pytest.raises(ValueError, match="computed from 'lengths' is 6; expected 0 to 5"):
        check_ranges(bounds(graph), {"ids": IDS, "lengths": torch.tensor([1, 7, 1, 1])})


@pytest.mark.slow
def test_batches_padded_further_have_torchs_shorter_outputs():
    graphs = agree(Packed(LAYERS["RNN"]), [3, 5, 1, 3], [2, 4, 5, 2], [1, 1, 4, 1])
    assert len(graphs) == 2
    assert agree(Packed(LAYERS["RNN"], total_length=6), [3, 5, 1, 3], [1, 1, 4, 1])[1:] == []


def test_initial_states_belong_to_their_rows():
    class Started(Packed):
        def forward(self, batch):
            packed, _ = self.pack(self.embedding(batch["ids"]), batch)
            start = (
                self.head.weight[:, :3].expand(4, 3, 3).transpose(0, 1)[:1] * batch["ids"][:, :1]
            )
            packed, last = self.layer(packed, start.contiguous())
            return {"last": last}, last.square().sum()

    agree(Started(LAYERS["RNN relu"]), *UNSORTED)


class Captions(Packed):
    """Computes on packed rows, as caption decoders do."""

    def forward(self, batch):
        ids, _ = self.pack(batch["ids"], batch)
        rows = F.dropout(self.embedding(ids.data), 0.5, self.training)
        packed, _ = self.layer(rnn.PackedSequence(rows, *ids[1:]))
        logits = self.head(self.middle(packed))
        targets = self.pack(batch["ids"] % 3, batch)[0].data
        return {}, F.cross_entropy(logits, targets)

    def middle(self, packed):
        return torch.tanh(packed.data)


def test_layers_and_cross_entropy_may_take_the_rows_packed():
    module = Captions(lambda: nn.LSTM(4, 20, batch_first=True))
    (graph,) = agree(module, *UNSORTED)
    assert graph.guards == ()


class LookedUp(Packed):
    """Looks up packed ids, of which none is 0."""

    def __init__(self, **options):
        super().__init__(LAYERS["GRU"])
        torch.manual_seed(0)
        self.embedding = nn.Embedding(21, 4, **options)

    def forward(self, batch):
        ids, _ = self.pack(batch["ids"] + 1, batch)
        packed, _ = self.layer(rnn.PackedSequence(self.embedding(ids.data), *ids[1:]))
        return {}, pad_packed_sequence(packed, batch_first=True, total_length=6)[0].square().sum()


@pytest.mark.parametrize("train", [True, False])
def test_what_no_valid_step_looks_up_keeps_its_norm(train):
    module = LookedUp(max_norm=0.5)
    (graph,) = agree(module, *UNSORTED, train=train)
    assert graph.updated


def test_ids_of_packed_rows_cannot_be_counted():
    message = r"on the rows of a packed sequence at .*embedding\(ids.data\).*without scale_grad"
    with pytest.raises(TraceError, match=message):
        agree(LookedUp(scale_grad_by_freq=True), *UNSORTED)


def test_a_sparse_gradient_lists_no_row_for_invalid_steps():
    module = LookedUp(sparse=True)

    def call(batch):
        module.train()
        return module(batch)

    batch = {"ids": IDS, "lengths": torch.tensor(UNSORTED[0])}
    _, loss = call(batch)
    listed = torch.autograd.grad(loss, module.embedding.weight)[0].coalesce().indices()[0]
    found = find(module)
    graph = trace(call, found, batch, train=True, rules=tracing_rules(marks_rows=True))
    with torch.no_grad():
        values = graph.module(*graph.inputs(found.tensors, columns(batch)))
    made = graph.results(values).gradients["embedding.weight"]
    assert made.any(1).nonzero().flatten().tolist() == listed.tolist()


def test_other_computations_on_packed_rows_are_refused():
    module = Captions(lambda: nn.LSTM(4, 20, batch_first=True))
    module.middle = lambda packed: packed.data - packed.data.mean()
    with pytest.raises(TraceError, match=r"on the rows of a packed sequence at .*pad_packed_seq"):
        agree(module, *UNSORTED)


def test_fixed_lengths_allow_any_computation():
    module = Captions(lambda: nn.LSTM(4, 20, batch_first=True), lambda _: [3, 6, 1, 3])
    module.middle = lambda packed: packed.data - packed.data.mean() * packed.batch_sizes[1]
    with pytest.warns(MissingOperatorWarning, match="_pack_padded_sequence"):
        agree(module, *UNSORTED)


@pytest.mark.parametrize("lengths", [[6, 0, 1, 2], slow([7, 1, 2, 3])])
def test_lengths_out_of_range_are_refused_as_in_torch(tmp_path, lengths):
    good = [{"ids": row, "length": n} for row, n in zip(IDS, [6, 4, 4, 1], strict=True)]
    bad = [{"ids": row, "length": n} for row, n in zip(IDS, lengths, strict=True)]
    trainer = make(tmp_path, Sequences(), train=good + bad, evaluated=good, batch_size=4)
    with pytest.raises((ValueError, RuntimeError), match=r"(?i)length"):
        trainer.train()


class Sequences(Classifier):
    """Ragged identifiers, packed."""

    def __init__(self):
        super().__init__(optimizer=torch.optim.SGD)
        layer = lambda: nn.LSTM(4, 10, bidirectional=True, batch_first=True)  # noqa: E731
        self.model = Packed(layer, lambda lengths: lengths.tolist())

    def collate(self, examples):
        return BatchData(
            ids=rnn.pad_sequence([e["ids"] for e in examples], batch_first=True),
            lengths=torch.tensor([e["length"] for e in examples]),
        )

    def forward(self, batch, return_loss, eval_mode):
        self.model.train(not eval_mode)
        packed, _ = self.model.pack(self.model.embedding(batch["ids"]), batch)
        padded, _ = pad_packed_sequence(self.model.layer(packed)[0], batch_first=True)
        counted = torch.arange(padded.shape[1]) < batch["lengths"][:, None]
        labels = torch.where(counted, batch["ids"] % 3, -100)
        loss = F.cross_entropy(self.model.head(padded).mT, labels)
        return BatchData(logits=padded.sum(1)), loss


def ragged(count):
    draw = torch.Generator().manual_seed(0)
    lengths = torch.randint(1, 5, (count,), generator=draw).tolist()
    return [
        {"ids": torch.randint(0, 20, (length,), generator=draw), "length": length}
        for length in lengths
    ]


def test_a_run_over_ragged_batches_equals_medkits(tmp_path):
    data = ragged(12)
    assert largest_difference(tmp_path, Sequences, data, data[:4]) < 1e-5


class Sloppy(Sequences):
    """Its collate sorts by length, until somebody switches that off."""

    def __init__(self, lengths=lambda lengths: lengths):
        super().__init__()
        layer = lambda: nn.LSTM(4, 10, bidirectional=True, batch_first=True)  # noqa: E731
        self.model = Packed(layer, lengths, enforce_sorted=True)
        self.sorts = True

    def collate(self, examples):
        falling = sorted(examples, key=lambda example: -example["length"])
        return super().collate(falling if self.sorts else falling[::-1])

    def on_epoch_begin(self, epoch):
        self.sorts = epoch < 2


@pytest.mark.parametrize(
    "lengths", [lambda lengths: lengths, slow(lambda lengths: lengths.tolist())]
)
def test_lengths_of_a_later_batch_have_to_be_sorted_as_in_torch(tmp_path, lengths):
    component, data = Sloppy(lengths), ragged(12)
    trainer = make(tmp_path, component, train=data, evaluated=data[:4], callback=component)
    told = r"must be sorted in decreasing order .* Called at .*; column 'lengths' holds \[\d, "
    with pytest.raises(RuntimeError, match=told):
        trainer.train()


def test_sorted_lengths_of_floats_are_refused_by_name(tmp_path):
    def of_scores(lengths):
        return lengths * component.model.head.bias.detach().square().ge(0).float().mean().int()

    component, data = Sloppy(of_scores), ragged(12)
    trainer = make(tmp_path, component, train=data, evaluated=data[:4])
    with pytest.raises(TraceError, match=r"pack_padded_sequence at .* Pass enforce_sorted=False"):
        trainer.train()
