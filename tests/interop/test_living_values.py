"""Callbacks that change the Python values, modules and data that forward reads."""

import numpy as np
import pytest
import torch
from living_runs import ROWS, both, medkit, train
from torch import nn
from torch.nn import functional as F
from trained import Classifier, make, same, weights

import medjax_torch
from medjax_torch import BatchData, Options
from medjax_torch.graph import TraceError


class Annealed(Classifier):
    """A component whose forward reads a number from an attribute."""

    def __init__(self):
        super().__init__(optimizer=torch.optim.SGD)
        self.alpha = 1.0
        self.settings = {"temperature": 1.0}
        self.class_weights = torch.ones(3)

    def forward(self, batch, return_loss, eval_mode):
        self.model.train(not eval_mode)
        logits = self.model(batch["x"]) / self.settings["temperature"]
        loss = self.alpha * F.cross_entropy(logits, batch["y"], weight=self.class_weights)
        return BatchData(logits=logits), loss


def set_alpha(component, trainer):
    def on_epoch_begin(epoch):
        component.alpha = 1.0 / epoch

    return {"on_epoch_begin": on_epoch_begin}


def set_alpha_each_step(component, trainer):
    def on_step_begin(step, nb_batches, phase):
        component.alpha *= 0.9

    return {"on_step_begin": on_step_begin}


def set_temperature(component, trainer):
    def on_epoch_begin(epoch):
        component.settings["temperature"] = 1.0 + epoch

    return {"on_epoch_begin": on_epoch_begin}


def replace_class_weights(component, trainer):
    def on_epoch_begin(epoch):
        if epoch == 2:
            component.class_weights = torch.tensor([3.0, 1.0, 0.5])

    return {"on_epoch_begin": on_epoch_begin}


def write_class_weights(component, trainer):
    def on_epoch_begin(epoch):
        if epoch == 2:
            component.class_weights[0] = 3.0

    return {"on_epoch_begin": on_epoch_begin}


@pytest.mark.parametrize(
    "callbacks",
    [
        set_alpha,
        set_alpha_each_step,
        set_temperature,
        replace_class_weights,
        write_class_weights,
    ],
)
def test_each_step_uses_the_current_values_of_attributes(tmp_path, callbacks):
    both(tmp_path, Annealed, callbacks)


def test_a_number_that_changes_at_every_step_is_an_input_of_one_graph(tmp_path):
    _, trainer = both(tmp_path, Annealed, set_alpha_each_step)
    graphs = [graph for graph in trainer.prepare().converted.variants.graphs if graph.train]
    assert len(graphs) == 2
    assert [number.name for number in graphs[-1].numbers] == ["@alpha"]


class Dropping(Classifier):
    """The dropout rate, which torch needs as a number, decides whether there is any dropout."""

    def forward(self, batch, return_loss, eval_mode):
        self.model.train(not eval_mode)
        logits = self.model(batch["x"])
        if self.model[2].p >= 0.5:
            logits = logits * 0.5
        return BatchData(logits=logits), F.cross_entropy(logits, batch["y"])


def test_a_changed_dropout_rate_needs_another_graph(tmp_path):
    def callbacks(component, trainer):
        def on_epoch_begin(epoch):
            component.model[2].p = 0.0 if epoch != 2 else 1.0

        return {"on_epoch_begin": on_epoch_begin}

    both(tmp_path, Dropping, callbacks)


class ByClass(Classifier):
    """A number that the class has, as a default of its instances."""

    alpha = 1.0

    def forward(self, batch, return_loss, eval_mode):
        self.model.train(not eval_mode)
        logits = self.model(batch["x"])
        return BatchData(logits=logits), self.alpha * F.cross_entropy(logits, batch["y"])


def set_on_class(component, trainer):
    def on_step_begin(step, nb_batches, phase):
        type(component).alpha *= 0.9

    return {"on_step_begin": on_step_begin}


@pytest.mark.parametrize("callbacks", [set_alpha, set_alpha_each_step, set_on_class])
def test_a_default_of_the_class_may_be_set_on_it_or_on_the_object(tmp_path, callbacks):
    def make_component():
        return type("Fresh", (ByClass,), {"alpha": 1.0})()

    both(tmp_path, make_component, callbacks)


SCALE = 1.0


class ReadingGlobals(Classifier):
    def forward(self, batch, return_loss, eval_mode):
        self.model.train(not eval_mode)
        logits = self.model(batch["x"]) * SCALE
        return BatchData(logits=logits), F.cross_entropy(logits, batch["y"])


def test_globals_that_change_are_read_again(tmp_path):
    def callbacks(component, trainer):
        def on_epoch_begin(epoch):
            global SCALE
            SCALE = 1.0 / epoch

        return {"on_epoch_begin": on_epoch_begin}

    both(tmp_path, ReadingGlobals, callbacks)


def test_a_hook_added_later_is_called(tmp_path):
    def callbacks(component, trainer):
        def on_epoch_begin(epoch):
            if epoch == 2:
                component.model[1].register_forward_hook(lambda module, inputs, out: out * 0.5)

        return {"on_epoch_begin": on_epoch_begin}

    both(tmp_path, Classifier, callbacks)


def test_a_module_without_weights_can_be_replaced(tmp_path):
    def callbacks(component, trainer):
        def on_epoch_begin(epoch):
            if epoch == 2:
                component.model[1] = nn.Tanh()

        return {"on_epoch_begin": on_epoch_begin}

    both(tmp_path, Classifier, callbacks)


class Counting(Classifier):
    steps = 0

    def forward(self, batch, return_loss, eval_mode):
        self.steps += 1
        self.model.train(not eval_mode)
        logits = self.model(batch["x"])
        return BatchData(logits=logits), F.cross_entropy(logits, batch["y"]) / self.steps


def test_a_counter_kept_in_forward_is_refused(tmp_path):
    with pytest.raises(TraceError, match="forward both reads and changes steps"):
        make(tmp_path, Counting()).train()


def test_a_dataset_that_grows_is_refused_with_both_lengths(tmp_path):
    data = list(ROWS)

    def callbacks(component, trainer):
        def on_epoch_end(metrics, epoch, epoch_duration):
            data.append(ROWS[0])

        return {"on_epoch_end": on_epoch_end}

    with pytest.raises(ValueError, match="has 25 items; expected 24"):
        train(medjax_torch, tmp_path, Classifier(), callbacks, data=data)


def test_medkits_batch_data_is_batch_data():
    assert isinstance(medkit.training.utils.BatchData(), BatchData)
    assert isinstance(BatchData(), BatchData)
    assert not isinstance({}, BatchData)


class OnGpu(Classifier):
    """As in scripts for machines with a GPU."""

    def __init__(self):
        super().__init__()
        self.device = 0

    def forward(self, batch, return_loss, eval_mode):
        return super().forward(batch.to_device(torch.device(self.device)), return_loss, eval_mode)


def test_a_component_that_says_device_0_is_trained(tmp_path):
    component = OnGpu()
    make(tmp_path / "gpu", component).train()
    plain = Classifier()
    make(tmp_path / "cpu", plain).train()
    assert component.device == 0
    assert same(weights(component), weights(plain))


def shrink_each_epoch(component, trainer):
    def on_epoch_end(metrics, epoch, epoch_duration):
        component.alpha *= 0.5
        component.settings["temperature"] += 0.25

    return {"on_epoch_end": on_epoch_end}


def halve_at_the_beginning(component, trainer):
    def on_train_begin(config):
        component.alpha *= 0.5

    return {"on_train_begin": on_train_begin, **shrink_each_epoch(component, trainer)}


def resumed(folder, component, callbacks, **fields):
    return train(medjax_torch, folder, component, callbacks, resume="auto", **fields)[0]


@pytest.mark.parametrize(
    "callbacks", [pytest.param(shrink_each_epoch, marks=pytest.mark.slow), halve_at_the_beginning]
)
def test_a_resumed_run_goes_on_with_the_values_that_callbacks_set(tmp_path, callbacks):
    uninterrupted, _ = train(
        medjax_torch, tmp_path / "whole", Annealed(), callbacks, nb_training_epochs=4
    )
    parts = tmp_path / "parts"
    train(medjax_torch, parts, Annealed(), callbacks, nb_training_epochs=2)
    resumed(parts, Annealed(), callbacks, nb_training_epochs=3)
    last = resumed(parts, Annealed(), callbacks, nb_training_epochs=4)
    assert same(weights(last.component), weights(uninterrupted.component))
    assert last.component.alpha == uninterrupted.component.alpha
    assert last.component.settings == uninterrupted.component.settings


def halve_each_epoch(component, trainer):
    def on_epoch_end(metrics, epoch, epoch_duration):
        component.alpha *= 0.5

    return {"on_epoch_end": on_epoch_end}


def test_a_resumed_run_continues_with_a_class_default_that_a_callback_set(tmp_path):
    callbacks, parts = halve_each_epoch, tmp_path / "parts"
    complete, _ = train(medjax_torch, tmp_path / "all", ByClass(), callbacks, nb_training_epochs=4)
    train(medjax_torch, parts, ByClass(), callbacks, nb_training_epochs=2)
    last = resumed(parts, ByClass(), callbacks, nb_training_epochs=4)
    assert last.component.alpha == complete.component.alpha
    assert same(weights(last.component), weights(complete.component))


class InOtherForms(Annealed):
    """Reads a NumPy number, a list and an array, and a number in preprocess alone."""

    def __init__(self):
        super().__init__()
        self.alpha = np.float64(1.0)
        self.weights, self.scale = [1.0, 1.0, 1.0], np.ones(3, np.float32)
        self.alias = self.weights
        self.shift = 0.0

    def preprocess(self, data):
        row = super().preprocess(data)
        return {**row, "x": row["x"] + self.shift}

    def forward(self, batch, return_loss, eval_mode):
        self.class_weights = torch.tensor(self.weights) * torch.from_numpy(self.scale)
        return super().forward(batch, return_loss, eval_mode)


def change_each_epoch(component, trainer):
    def on_epoch_end(metrics, epoch, epoch_duration):
        component.alpha = component.alpha * np.float64(0.5)
        component.weights[0] += 1.0
        component.scale *= np.float32(0.75)
        component.shift += 0.125

    return {"on_epoch_end": on_epoch_end}


def test_a_resumed_run_goes_on_with_arrays_lists_and_what_preprocess_reads(tmp_path):
    callbacks, parts = change_each_epoch, tmp_path / "parts"
    whole, _ = train(
        medjax_torch, tmp_path / "all", InOtherForms(), callbacks, nb_training_epochs=4
    )
    train(medjax_torch, parts, InOtherForms(), callbacks, nb_training_epochs=2)
    last = resumed(parts, InOtherForms(), callbacks, nb_training_epochs=4)
    found, expected = last.component, whole.component
    assert same(weights(found), weights(expected))
    assert (type(found.alpha), found.alpha) == (np.float64, expected.alpha)
    assert found.alias is found.weights
    assert found.weights == expected.weights
    assert found.shift == expected.shift
    np.testing.assert_array_equal(found.scale, expected.scale)


def test_a_value_that_its_user_has_changed_is_kept_and_said(tmp_path, caplog):
    train(medjax_torch, tmp_path, Annealed(), shrink_each_epoch, nb_training_epochs=2)
    component = Annealed()
    component.alpha = 3.0
    resumed(tmp_path, component, shrink_each_epoch, nb_training_epochs=3)
    assert component.alpha == 1.5
    (said,) = (r.getMessage() for r in caplog.records if "when training began" in r.getMessage())
    assert "alpha was 1.0 when training began and 0.25 when it was saved; it is 3.0 now" in said


def shrink_at_each_beginning(component, trainer):
    def on_epoch_begin(epoch):
        component.alpha *= 0.5

    return {"on_epoch_begin": on_epoch_begin}


def test_an_epoch_that_goes_on_has_the_values_it_began_with(tmp_path):
    def cut(component, trainer):
        def on_step_begin(step, nb_batches, phase):
            if trainer.component.alpha == 0.25 and step == 2 and phase == "train":
                raise RuntimeError("cut")

        return {"on_step_begin": on_step_begin, **shrink_at_each_beginning(component, trainer)}

    options = Options(order="medkit", save_interval_steps=1)
    arguments = {"options": options, "nb_training_epochs": 3}
    uninterrupted, _ = train(
        medjax_torch, tmp_path / "a", Annealed(), shrink_at_each_beginning, **arguments
    )
    with pytest.raises(RuntimeError, match="cut"):
        train(medjax_torch, tmp_path / "b", Annealed(), cut, **arguments)
    last = resumed(tmp_path / "b", Annealed(), shrink_at_each_beginning, **arguments)
    assert last.component.alpha == 0.125
    assert same(weights(last.component), weights(uninterrupted.component))
