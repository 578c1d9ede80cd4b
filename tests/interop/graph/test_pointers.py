"""Queues with a buffer that says where the next batch is written."""

import pytest
import torch
from medkit_runs import largest_difference
from torch.nn import functional as F
from trained import DATA, Classifier, make

from medjax_torch import BatchData

SIZE = 24


class Contrasted(Classifier):
    """Keys of earlier batches in a queue, as momentum contrast has them."""

    def __init__(self, size=SIZE):
        super().__init__(optimizer=torch.optim.SGD)
        keys = torch.randn(3, size, generator=torch.Generator().manual_seed(0))
        self.model.register_buffer("queue", F.normalize(keys, dim=0))
        self.model.register_buffer("queue_ptr", torch.zeros(1, dtype=torch.long))

    @torch.no_grad()
    def enqueue(self, keys):
        ptr = int(self.model.queue_ptr)
        self.model.queue[:, ptr : ptr + len(keys)] = keys.T
        self.model.queue_ptr[0] = (ptr + len(keys)) % self.model.queue.shape[1]

    def forward(self, batch, return_loss, eval_mode):
        self.model.train(not eval_mode)
        queries = F.normalize(self.model(batch["x"]), dim=1)
        keys = F.normalize(self.model(batch["x"] + 0.1), dim=1).detach()
        others = queries @ self.model.queue.clone().detach()
        logits = torch.cat([(queries * keys).sum(1, keepdim=True), others], 1) / 0.2
        loss = F.cross_entropy(logits, torch.zeros(len(logits), dtype=torch.long))
        if not eval_mode:
            self.enqueue(keys)
        return BatchData(logits=logits), loss


class WithTypes(Contrasted):
    """`int` as a dtype, as a base of names and in a check, in addition to the pointer."""

    @torch.no_grad()
    def enqueue(self, keys):
        assert isinstance(len(keys), int)
        assert int.from_bytes(b"\x01", "big") == int("1")
        super().enqueue(keys * torch.ones(1, dtype=torch.long))


class ByItem(Contrasted):
    """The pointer read and kept in other words, rows first."""

    @torch.no_grad()
    def enqueue(self, keys):
        assert isinstance(len(keys), int)
        begin = self.model.queue_ptr[0].item()
        end = begin + len(keys)
        self.model.queue.T[begin:end] = keys
        self.model.queue_ptr.fill_(end % int(self.model.queue.shape[1]))


@pytest.mark.parametrize("component", [Contrasted, WithTypes, ByItem])
def test_a_queue_is_that_of_torch(tmp_path, component, recwarn):
    fields = {"batch_size": 8, "nb_training_epochs": 3}
    data = DATA[:40]
    assert largest_difference(tmp_path, component, data, data[:8], **fields) < 1e-5
    assert not [str(w.message) for w in recwarn if "reads values" in str(w.message)]


def test_one_graph_serves_all_places(tmp_path):
    trainer = make(tmp_path, Contrasted(), train=DATA[:40])
    trainer.train()
    assert sum(graph.train for graph in trainer.prepare().converted.variants.graphs) == 1
    assert trainer.component.model.queue_ptr.item() == 3 * 40 % SIZE


def test_a_batch_that_would_not_fit_ends_training(tmp_path):
    with pytest.raises(Exception, match="expanded size of the tensor"):
        make(tmp_path, Contrasted(size=20), train=DATA[:40]).train()


class Branching(Contrasted):
    """A length that the pointer decides."""

    @torch.no_grad()
    def enqueue(self, keys):
        ptr = int(self.model.queue_ptr)
        self.model.queue[:, : ptr + 1] = keys.T[:, :1]
        self.model.queue_ptr[0] = ptr + 1


def test_a_length_that_a_pointer_decides_is_refused_by_line(tmp_path):
    with pytest.raises(Exception, match=r"reads at .*ptr = int"):
        make(tmp_path, Branching(), train=DATA[:40]).train()
