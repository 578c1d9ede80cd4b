"""The trained parameters may change while a component trains: freezing, groups, heads."""

import pytest
import torch
from living_runs import ROWS, both, train
from torch.nn import functional as F
from trained import Classifier, TwoHeads, make, same, weights

import medjax_torch
from medjax_torch import BatchData, Options


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


class HalfHeads(TwoHeads):
    def __init__(self):
        super().__init__()
        self.model["left"].half()
        self.model["right"].half()

    def forward(self, batch, return_loss, eval_mode):
        hidden = torch.tanh(self.model["body"](batch["x"]))
        logits = self.model[batch["head"]](hidden.half()).float()
        return BatchData(logits=logits), F.cross_entropy(logits, batch["y"])


def test_a_head_of_float16_that_some_batches_do_not_use_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"model\.left\.bias, .* is float16, and some batches"):
        train(medjax_torch, tmp_path, HalfHeads(), lambda component, trainer: {})


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
