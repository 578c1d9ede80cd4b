"""Changes that callbacks and users make to a component during training, as in medkit's Trainer.

medkit's component of each case is trained by medkit's Trainer and by ours, with the same data, seed
and order; losses of all epochs and the weights at the end have to agree.
"""

import copy
import time as clock
import warnings

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from trained import CLASSES, POINTS, Classifier, make, same, weights

import medjax_torch
from medjax_torch import BatchData, Options
from medjax_torch.graph import TraceError

pytest.importorskip("medkit")
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import medkit.training

ROWS = [{"x": x, "y": int(y)} for x, y in zip(POINTS[:24], CLASSES[:24], strict=True)]


def train(module, folder, component, callbacks, *, data=None, evaluated=None, times=1, **fields):
    """Return trainer and history; `callbacks` returns functions by event name."""
    data = list(ROWS) if data is None else data
    config = module.TrainerConfig(
        output_dir=str(folder),
        **{"learning_rate": 0.05, "nb_training_epochs": 3, "batch_size": 8, "seed": 3, **fields},
    )
    more = {"options": Options(order="medkit")} if module is medjax_torch else {}
    holder = {}

    class Callback(module.TrainerCallback):
        def on_epoch_end(self, metrics, epoch, epoch_duration):
            pass

    callback = Callback()
    trainer = module.Trainer(
        component, config, data, evaluated or ROWS[:10], callback=callback, **more
    )
    holder["trainer"] = trainer
    for name, function in callbacks(component, trainer).items():
        setattr(callback, name, function)
    history = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # medkit's utcnow
        for time in range(times):
            if time:
                component.between()
                clock.sleep(1.1)  # medkit's folder names have a resolution of a second
            history += trainer.train()
    return trainer, history


def both(tmp_path, make_component, callbacks=lambda component, trainer: {}, **more):
    """Train with both and compare; return our component and trainer."""
    theirs, ours = make_component(), make_component()
    theirs.BatchData = medkit.training.utils.BatchData
    _, expected = train(medkit.training, tmp_path / "medkit", theirs, callbacks, **more)
    trainer, history = train(medjax_torch, tmp_path / "medjax", ours, callbacks, **more)
    for row, other in zip(history, expected, strict=True):
        for phase in ("train", "eval"):
            assert row[phase]["loss"] == pytest.approx(other[phase]["loss"], rel=2e-5, abs=1e-6)
    for name, value in theirs.model.state_dict().items():
        np.testing.assert_allclose(ours.model.state_dict()[name], value, rtol=2e-4, atol=2e-5)
    return ours, trainer


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


def freeze_then_unfreeze(component, trainer):
    def on_epoch_begin(epoch):
        component.model[0].requires_grad_(epoch == 2)

    return {"on_epoch_begin": on_epoch_begin}


def freeze_in_turn(component, trainer):
    def on_step_begin(step, nb_batches, phase):
        if phase == "train":
            component.model[0].requires_grad_(step % 2 == 0)

    return {"on_step_begin": on_step_begin}


def add_a_group(component, trainer):
    def on_epoch_begin(epoch):
        if epoch == 2:
            component.model[0].requires_grad_(True)
            trainer.optimizer.add_param_group(
                {"params": component.model[0].parameters(), "lr": 0.01}
            )

    return {"on_epoch_begin": on_epoch_begin}


class Frozen(Classifier):
    """The first layer is initially frozen and in no group."""

    def __init__(self, optimizer=torch.optim.AdamW):
        super().__init__(optimizer=optimizer)
        self.model[0].requires_grad_(False)

    def configure_optimizer(self, lr):
        return self.optimizer([p for p in self.model.parameters() if p.requires_grad], lr=lr)


class FrozenInGroup(Classifier):
    def __init__(self):
        super().__init__()
        self.model[0].requires_grad_(False)

    def between(self):
        self.model[0].requires_grad_(True)


@pytest.mark.parametrize("accumulation", [1, 2])
@pytest.mark.parametrize(
    ("kind", "callbacks"),
    [
        (Classifier, freeze_then_unfreeze),
        (Classifier, freeze_in_turn),
        (FrozenInGroup, freeze_then_unfreeze),
        (Frozen, add_a_group),
    ],
)
def test_freezing_and_unfreezing_works_as_in_torch(tmp_path, kind, callbacks, accumulation):
    if callbacks is freeze_in_turn and accumulation > 1:
        pytest.skip("torch keeps what was accumulated before, as we do; one order is enough")
    both(tmp_path, kind, callbacks, gradient_accumulation_steps=accumulation)


def test_training_twice_with_an_unfreeze_between(tmp_path):
    # In one batch, as a second training continues medkit's order, but restarts ours.
    both(tmp_path, FrozenInGroup, times=2, batch_size=24)


def clamp_each_step(component, trainer):
    def on_step_end(step, nb_batches, phase):
        for parameter in component.model.parameters():
            parameter.data.clamp_(-0.2, 0.2)

    return {"on_step_end": on_step_end}


def load_at_the_beginning(component, trainer):
    def on_train_begin(config):
        with torch.no_grad():
            for parameter in component.model.parameters():
                parameter.mul_(0.5)

    return {"on_train_begin": on_train_begin}


def clamp_kept_views(component, trainer):
    kept = [parameter.data for parameter in component.model.parameters()]

    def on_step_end(step, nb_batches, phase):
        for view in kept:
            view.clamp_(-0.2, 0.2)

    return {"on_step_end": on_step_end}


def shrink_kept_views_after_each_epoch(component, trainer):
    kept = [parameter.data for parameter in component.model.parameters()]

    def on_epoch_end(metrics, epoch, epoch_duration):
        for view in kept:
            view.mul_(0.5)

    return {"on_epoch_end": on_epoch_end}


def write_by_numpy(component, trainer):
    kept = component.model[0].weight.detach().numpy()

    def on_step_end(step, nb_batches, phase):
        np.clip(kept, -0.2, 0.2, out=kept)

    return {"on_step_end": on_step_end}


def load_at_the_end(component, trainer):
    def on_train_end():
        with torch.no_grad():
            for parameter in component.model.parameters():
                parameter.mul_(0.5)

    return {"on_train_end": on_train_end}


def clamp_after_each_epoch(component, trainer):
    def on_epoch_end(metrics, epoch, epoch_duration):
        component.model[0].weight.data.clamp_(-0.2, 0.2)

    return {"on_epoch_end": on_epoch_end}


@pytest.mark.parametrize(
    "callbacks",
    [
        shrink_kept_views_after_each_epoch,
        load_at_the_end,
        clamp_after_each_epoch,
        clamp_each_step,
        load_at_the_beginning,
        clamp_kept_views,
        write_by_numpy,
    ],
)
def test_weights_written_by_a_callback_are_used(tmp_path, callbacks):
    both(tmp_path, Classifier, callbacks)


def average_and_swap(component, trainer):
    """An exponential moving average that replaces the weights during evaluation."""
    average = copy.deepcopy(component.model)
    evaluate = trainer.evaluation_epoch

    def on_step_end(step, nb_batches, phase):
        if phase == "train":
            for kept, parameter in zip(
                average.parameters(), component.model.parameters(), strict=True
            ):
                kept.data.lerp_(parameter.data, 0.3)

    def evaluation_epoch(loader):
        saved = copy.deepcopy(component.model.state_dict())
        component.model.load_state_dict(average.state_dict())
        try:
            return evaluate(loader)
        finally:
            component.model.load_state_dict(saved)

    trainer.evaluation_epoch = evaluation_epoch
    return {"on_step_end": on_step_end}


def test_averaged_weights_can_be_swapped_in_for_evaluation(tmp_path):
    both(tmp_path, Classifier, average_and_swap)


def test_a_callback_sees_the_current_weights(tmp_path):
    seen = {}

    def callbacks(component, trainer):
        sums = seen.setdefault(trainer.__module__.partition(".")[0], [])

        def on_step_end(step, nb_batches, phase):
            with torch.no_grad():
                sums.append(float(component.model(POINTS[:4]).sum()))

        return {"on_step_end": on_step_end}

    both(tmp_path, Classifier, callbacks)
    np.testing.assert_allclose(seen["medjax_torch"], seen["medkit"], rtol=1e-4, atol=1e-5)


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


class Normed(Classifier):
    def __init__(self):
        super().__init__(optimizer=torch.optim.SGD)
        self.model = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Linear(8, 3))


def reset_statistics(component, trainer):
    def on_epoch_begin(epoch):
        if epoch == 2:
            component.model[1].reset_running_stats()

    return {"on_epoch_begin": on_epoch_begin}


def register_again(component, trainer):
    def on_epoch_begin(epoch):
        if epoch == 2:
            component.model[1].register_buffer("running_mean", torch.full((8,), 0.5))

    return {"on_epoch_begin": on_epoch_begin}


@pytest.mark.parametrize("callbacks", [reset_statistics, register_again])
def test_buffers_can_be_written_and_registered_again(tmp_path, callbacks):
    both(tmp_path, Normed, callbacks)


def test_a_replaced_parameter_is_refused_by_name(tmp_path):
    def callbacks(component, trainer):
        def on_epoch_begin(epoch):
            if epoch == 2:
                component.model[3] = nn.Linear(16, 3)

        return {"on_epoch_begin": on_epoch_begin}

    with pytest.raises(TraceError, match=r"model\.3\.weight of the component was replaced"):
        train(medjax_torch, tmp_path, Classifier(), callbacks)


class Counting(Classifier):
    steps = 0

    def forward(self, batch, return_loss, eval_mode):
        self.steps += 1
        self.model.train(not eval_mode)
        logits = self.model(batch["x"])
        return BatchData(logits=logits), F.cross_entropy(logits, batch["y"]) / self.steps


def test_a_counter_kept_in_forward_is_refused(tmp_path):
    with pytest.raises(TraceError, match="forward counts in steps"):
        make(tmp_path, Counting()).train()


class TwoHeads(Classifier):
    """A batch with one kind of row uses only one head."""

    def __init__(self, optimizer=torch.optim.AdamW, **options):
        super().__init__(optimizer=optimizer, **options)
        self.model = nn.ModuleDict(
            {"body": nn.Linear(6, 8), "left": nn.Linear(8, 3), "right": nn.Linear(8, 3)}
        )

    def collate(self, examples):
        batch = super().collate(examples)
        batch["head"] = "left" if float(batch["x"].sum()) > 0 else "right"
        return batch

    def forward(self, batch, return_loss, eval_mode):
        self.model.train(not eval_mode)
        logits = self.model[batch["head"]](torch.tanh(self.model["body"](batch["x"])))
        return BatchData(logits=logits), F.cross_entropy(logits, batch["y"])


@pytest.mark.parametrize("accumulation", [1, 3])
@pytest.mark.parametrize(
    "options",
    [
        {"optimizer": torch.optim.AdamW, "weight_decay": 0.1},
        {"optimizer": torch.optim.SGD, "momentum": 0.9, "weight_decay": 0.1},
    ],
)
def test_batches_that_do_not_use_a_head_do_not_change_it(tmp_path, options, accumulation):
    both(tmp_path, lambda: TwoHeads(**options), gradient_accumulation_steps=accumulation)


def test_medkits_batch_data_is_batch_data():
    assert isinstance(medkit.training.utils.BatchData(), BatchData)
    assert isinstance(BatchData(), BatchData)
    assert not isinstance({}, BatchData)


def test_a_resumed_run_continues_with_unfrozen_parameters(tmp_path):
    def callbacks(component, trainer):
        def on_epoch_begin(epoch):
            if epoch == 2:
                component.model[0].requires_grad_(True)

        return {"on_epoch_begin": on_epoch_begin}

    complete, _ = train(medjax_torch, tmp_path / "whole", FrozenInGroup(), callbacks)
    train(medjax_torch, tmp_path / "parts", FrozenInGroup(), callbacks, nb_training_epochs=2)
    trainer = make(
        tmp_path / "parts",
        FrozenInGroup(),
        train=ROWS,
        evaluated=ROWS[:10],
        options=Options(order="medkit"),
        learning_rate=0.05,
    )
    trainer.train(resume="auto")
    assert same(weights(trainer.component), weights(complete.component))


def test_a_dataset_that_grows_is_refused_with_both_lengths(tmp_path):
    data = list(ROWS)

    def callbacks(component, trainer):
        def on_epoch_end(metrics, epoch, epoch_duration):
            data.append(ROWS[0])

        return {"on_epoch_end": on_epoch_end}

    with pytest.raises(ValueError, match="has 25 items; expected 24"):
        train(medjax_torch, tmp_path, Classifier(), callbacks, data=data)


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


def test_an_error_of_a_callback_is_not_hidden_by_writing_weights_back(tmp_path):
    def callbacks(component, trainer):
        def on_epoch_begin(epoch):
            if epoch == 2:
                component.model[0].weight.data = torch.zeros(2)
                raise RuntimeError("the first cause")

        return {"on_epoch_begin": on_epoch_begin}

    with pytest.raises(RuntimeError, match="the first cause") as caught:
        train(medjax_torch, tmp_path, Classifier(), callbacks)
    assert any("could not be written back" in note for note in caught.value.__notes__)
