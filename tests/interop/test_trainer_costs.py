"""Time and memory: the cost of conversion, and advice if memory runs out."""

import logging

import jax
import pytest
import torch
from trained import Classifier, Tagger, make, same, sentences, weights

from medjax import OutOfMemoryError
from medjax_torch import Options


def test_the_cost_of_conversion_can_be_read(tmp_path, caplog):
    data = sentences()
    trainer = make(
        tmp_path, Tagger(), train=data, evaluated=data, options=Options(length_ladder=(16, 32))
    )
    assert trainer.conversion_cost == (0, 0, 0, 0, 0)
    with caplog.at_level(logging.INFO, "medjax"):
        trainer.train()
    cost = trainer.conversion_cost
    assert cost.nb_graphs == caplog.text.count("Traced forward") >= 2
    assert cost.nb_compilations == sum("Compiled " in message for message in caplog.messages) >= 2
    assert min(cost.tracing, cost.comparing, cost.compiling) > 0
    assert f"Converting the component took: {cost}" in caplog.messages
    assert str(cost).startswith(f"{cost.nb_graphs} graphs traced in {cost.tracing:.1f} s")

    trainer.train()  # the graphs already exist
    assert trainer.conversion_cost.nb_graphs == cost.nb_graphs
    assert trainer.conversion_cost.tracing == cost.tracing


class Hungry(Classifier):
    """Needs terabytes, which the size of its graph does not show.

    It uses a sum, as at this size the compiler of JAX 0.12 divides by zero in a sort.
    """

    def forward(self, batch, return_loss, eval_mode):
        outputs, loss = super().forward(batch, return_loss, eval_mode)
        long = torch.arange(2**20) * loss.detach()
        return outputs, loss + 0 * (long.sin() * long[:, None]).cumsum(0).max()


def test_a_trainer_without_enough_memory_says_what_to_reduce(tmp_path):
    component = Hungry()
    before = weights(component)
    trainer = make(tmp_path, component, options=Options(verify=False))
    with pytest.raises(
        OutOfMemoryError, match=r"training with a batch of x float32\[8,6\]"
    ) as error:
        trainer.train()
    assert isinstance(error.value.__cause__, jax.errors.JaxRuntimeError)
    assert same(weights(component), before)
