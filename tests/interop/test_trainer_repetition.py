"""Trainers are created and trained repeatedly: nothing is leaked, nothing is compiled twice."""

import gc
import weakref

import pytest
import torch
from trained import Accuracy, Classifier, make


@pytest.mark.slow
def test_a_component_is_freed_with_its_trainer(tmp_path):
    components = []
    for number in range(10):
        component = Classifier()
        components.append(weakref.ref(component))
        make(tmp_path / str(number), component, nb_training_epochs=1).train()
        del component
    gc.collect()
    assert [reference() for reference in components] == [None] * 10


def test_the_second_training_traces_and_compiles_nothing(tmp_path, traces):
    component = Classifier()
    trainer = make(tmp_path, component, metrics_computer=Accuracy(), lr_scheduler_builder=builder)
    before = trainer.train()
    cost = trainer.conversion_cost
    assert traces
    traces.clear()
    after = trainer.train()
    assert traces == []
    assert trainer.conversion_cost.nb_compilations == cost.nb_compilations
    assert after[0]["train"]["loss"] < before[0]["train"]["loss"]


def builder(optimizer):
    return torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.9)


def test_changes_to_the_groups_take_effect_in_the_second_training(tmp_path, traces):
    component = Classifier(torch.optim.SGD)
    trainer = make(tmp_path, component)
    trainer.train()
    initial = [parameter.detach().clone() for parameter in component.model.parameters()]
    trainer.optimizer.param_groups[0]["lr"] = 0.0
    traces.clear()
    trainer.train()
    assert traces == []
    for parameter, before in zip(component.model.parameters(), initial, strict=True):
        assert torch.equal(parameter, before)
    trainer.optimizer.param_groups[0].update(lr=0.1, momentum=0.9)  # needs another compiled step
    trainer.train()
    assert traces
    assert "momentum_buffer" in next(iter(trainer.optimizer.state.values()))


def test_a_schedule_that_reads_another_value_is_traced_again(tmp_path):
    component, rate = Classifier(), [0.1]
    trainer = make(tmp_path, component, lr_scheduler_builder=lambda step: rate[0] + 0.0 * step)
    trainer.train()
    initial = [parameter.detach().clone() for parameter in component.model.parameters()]
    rate[0] = 0.0
    trainer.train()
    for parameter, before in zip(component.model.parameters(), initial, strict=True):
        assert torch.equal(parameter, before)


class Scaled(Classifier):
    scale = 1.0

    def forward(self, batch, return_loss, eval_mode):
        outputs, loss = super().forward(batch, return_loss, eval_mode)
        return outputs, loss * self.scale


def test_a_forward_that_changed_between_trainings_is_traced_again(tmp_path):
    component = Scaled(optimizer=torch.optim.SGD)
    trainer = make(tmp_path, component, nb_training_epochs=1, learning_rate=0.0)
    (first,) = trainer.train()
    component.scale = 2.0
    (second,) = trainer.train()
    assert second["train"]["loss"] == pytest.approx(2 * first["train"]["loss"], rel=1e-5)
    assert second["eval"]["loss"] == pytest.approx(2 * first["eval"]["loss"], rel=1e-5)
