"""Mistakes are reported before training starts, with clear messages."""

import functools

import pytest
import torch
from torch import nn
from torch.optim import lr_scheduler
from trained import DATA, Accuracy, Classifier, make

import medjax
from medjax_torch import BatchData, Options, Trainer, TrainerConfig
from medjax_torch.optimizers.horizon import horizons

FORWARD = Classifier.forward


def changed(**methods):
    """Return a component with other methods; `result` is applied to the results of forward."""
    result = methods.pop("result", None)
    if result is not None:
        methods["forward"] = lambda self, batch, return_loss, eval_mode: result(
            *FORWARD(self, batch, return_loss, eval_mode)
        )
    return type("Changed", (Classifier,), methods)()


ARGUMENTS = {
    "component is Linear": {"component": nn.Linear(2, 2)},
    "component is the class Classifier; expected an instance": {"component": Classifier},
    "config is {'seed': 1} of type dict; expected a TrainerConfig": {"config": {"seed": 1}},
    "options is {'verify': False} of type dict; expected a medjax_torch.Op": {
        "options": {"verify": False}
    },
    "of type medjax.config.Options; expected a medjax_torch.Options": {"options": medjax.Options()},
    "metrics_computer is the class Accuracy; expected an instance": {"metrics_computer": Accuracy},
    "metrics_computer is 3 of type int; expected an object with the method prepare_batch": {
        "metrics_computer": 3
    },
    "expected a function of the optimizer: lambda optimizer: StepLR": {
        "lr_scheduler_builder": lr_scheduler.StepLR(Classifier().configure_optimizer(0.1), 1)
    },
    "is the class StepLR, which needs more arguments than the optimizer": {
        "lr_scheduler_builder": lr_scheduler.StepLR
    },
    "result of component.configure_optimizer is <class 'torch.optim.sgd.SGD'>": {
        "component": changed(configure_optimizer=lambda self, lr: torch.optim.SGD)
    },
}


@pytest.mark.parametrize("message", ARGUMENTS)
def test_arguments(message, tmp_path):
    arguments = {
        "component": Classifier(),
        "config": TrainerConfig(output_dir=tmp_path, learning_rate=0.1, nb_training_epochs=1),
        "callback": [],
    }
    with pytest.raises(ValueError, match=message.replace("(", r"\(")):
        Trainer(train_data=DATA, eval_data=DATA, **(arguments | ARGUMENTS[message]))


def test_the_error_for_a_module_names_what_it_lacks(tmp_path):
    with pytest.raises(ValueError, match=r"write a class that wraps .*; it has no configure_opt"):
        make(tmp_path, nn.Linear(2, 2))


@pytest.mark.parametrize(
    ("result", "message"),
    [
        (
            lambda outputs, loss: loss,
            r"returned a tensor of shape \(\); expected two values: the outputs",
        ),
        (lambda outputs, loss: (outputs, loss, {}), "returned 3 values; expected two"),
        (
            lambda outputs, loss: (outputs["logits"], loss),
            r"returned a tensor of shape \(8, 3\) as outputs; expected a BatchData",
        ),
        (lambda outputs, loss: (outputs, None), "did not return a 'loss'"),
    ],
)
def test_results_of_forward(result, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        make(tmp_path, changed(result=result)).train()
    assert not list(tmp_path.glob("checkpoint_*"))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"checkpoint_metric": "acuracy"},
            "Checkpoint metric 'acuracy' not found: .*, which no .*did you mean 'accuracy'",
        ),
        (
            {"checkpoint_metric": "f1", "metrics_computer": None},
            r"Checkpoint metric 'f1' not found: .* There are \['loss'\]",
        ),
        ({"checkpoint_metric": "eval_loss"}, "did you mean 'loss'"),
        (
            {
                "metric_to_track_lr": "f1",
                "lr_scheduler_builder": lr_scheduler.ReduceLROnPlateau,
            },
            "Learning scheduler needs an eval metric to update .*'f1' was not found: .*track_lr",
        ),
    ],
)
def test_metrics_that_will_not_be_computed_are_refused(settings, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        make(tmp_path, **({"metrics_computer": Accuracy()} | settings)).train()


def test_metric_names_are_determined_with_a_copy_of_the_computer(tmp_path):
    seen = []
    for name, metric in (("loss", "loss"), ("accuracy", "accuracy")):
        computer = Accuracy()
        settings = {"checkpoint_metric": metric, "minimize_checkpoint_metric": metric == "loss"}
        history = make(
            tmp_path / name, metrics_computer=computer, nb_training_epochs=1, **settings
        ).train()
        seen.append((history, computer.computed))
    assert seen[0] == seen[1]


def linear(optimizer, num_warmup_steps, num_training_steps):
    """Return a schedule in the way transformers does."""

    def rate(step, *, num_warmup_steps, num_training_steps):
        return min(step / num_warmup_steps, (num_training_steps - step) / num_training_steps)

    steps = {"num_warmup_steps": num_warmup_steps, "num_training_steps": num_training_steps}
    return lr_scheduler.LambdaLR(optimizer, functools.partial(rate, **steps))


def closing_over(optimizer, num_training_steps):
    return lr_scheduler.LambdaLR(optimizer, lambda step: 1 - step / num_training_steps)


MADE_FOR_STEPS = {
    "OneCycleLR is made for total_steps=100": (lr_scheduler.OneCycleLR, 0.1, 100),
    "CosineAnnealingLR is made for T_max=50": (lr_scheduler.CosineAnnealingLR, 50),
    "CosineAnnealingWarmRestarts is made for T_0=10": (
        lr_scheduler.CosineAnnealingWarmRestarts,
        10,
    ),
    "CyclicLR is made for total_size=40": (lr_scheduler.CyclicLR, 0.01, 0.1, 20),
    "LinearLR is made for total_iters=10": (lr_scheduler.LinearLR, 0.1, 1.0, 10),
    "PolynomialLR is made for total_iters=90": (lr_scheduler.PolynomialLR, 90),
    "StepLR is made for step_size=30": (lr_scheduler.StepLR, 30),
    "MultiStepLR is made for milestones=30": (lr_scheduler.MultiStepLR, [80, 30]),
    "LambdaLR is made for num_warmup_steps=10": (linear, 10, 100),
    "LambdaLR is made for num_training_steps=100": (closing_over, 100),
}


@pytest.mark.parametrize("message", MADE_FOR_STEPS)
def test_a_scheduler_made_for_updates_is_named(message, tmp_path, caplog):
    kind, *arguments = MADE_FOR_STEPS[message]
    builder = lambda optimizer: kind(optimizer, *arguments)  # noqa: E731
    trainer = make(
        tmp_path,
        Classifier(torch.optim.SGD, momentum=0.9),
        lr_scheduler_builder=builder,
        nb_training_epochs=1,
    )
    trainer.train()
    assert (
        f"{message} steps, but it is stepped after each epoch, of which there are 1" in caplog.text
    )
    assert 'Options(lr_scheduler_interval="step") to step it after each of 6 updates' in caplog.text
    caplog.clear()
    by_step = make(
        tmp_path / "step",
        lr_scheduler_builder=lambda optimizer: lr_scheduler.CosineAnnealingLR(optimizer, 6),
        options=Options(lr_scheduler_interval="step"),
        nb_training_epochs=1,
    )
    by_step.train()
    assert "is made for" not in caplog.text


def test_a_scheduler_made_for_epochs_is_named_when_it_is_stepped_by_update(tmp_path, caplog):
    builder = lambda optimizer: lr_scheduler.CosineAnnealingLR(optimizer, 2)  # noqa: E731
    settings = {"lr_scheduler_builder": builder, "nb_training_epochs": 2}
    make(tmp_path / "epoch", **settings).train()
    assert "is made for" not in caplog.text
    make(tmp_path / "step", **settings, options=Options(lr_scheduler_interval="step")).train()
    assert 'set Options(lr_scheduler_interval="epoch") to step it after each of 2' in caplog.text


def test_parts_of_a_scheduler_are_checked():
    optimizer = Classifier(torch.optim.SGD).configure_optimizer(0.1)
    parts = [
        lr_scheduler.LinearLR(optimizer, 0.1, 1.0, 10),
        lr_scheduler.ExponentialLR(optimizer, 0.9),
    ]
    result = list(horizons(lr_scheduler.SequentialLR(optimizer, parts, [10])))
    assert [(each.scheduler, each.steps) for each in result] == [
        ("SequentialLR", 10),
        ("LinearLR", 10),
    ]
    assert list(horizons(lr_scheduler.ExponentialLR(optimizer, 0.9))) == []


def test_a_dict_is_a_batch_and_outputs(tmp_path):
    """The checks accept whatever works."""
    component = changed(
        result=lambda outputs, loss: (dict(outputs), loss),
        collate=lambda self, examples: BatchData(Classifier.collate(self, examples)),
    )
    assert make(tmp_path, component, nb_training_epochs=1).train()


@pytest.mark.parametrize("is_cleared", [False, True])
def test_gradients_from_before_training_are_named(is_cleared, tmp_path, caplog):
    component = Classifier()
    trainer = make(tmp_path, component, nb_training_epochs=1)
    component.model(torch.ones(1, 6)).sum().backward()
    if is_cleared:
        trainer.optimizer.zero_grad(set_to_none=False)
    trainer.train()
    assert ("parameters have gradients from before training" in caplog.text) is not is_cleared
