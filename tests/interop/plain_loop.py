"""A loop in torch that trains as medkit does, on batches whose order does not matter."""

import torch
from trained import DATA, make, weights

from medjax_torch import Options

ROWS = DATA[:1] * 24
"""Equal rows, so that every batch of every order is the same."""

BATCH = 8


class Hooks:
    """A callback made of functions by the name of their event."""

    def __init__(self, **functions):
        self._functions = functions

    def __getattr__(self, name):
        if not name.startswith("on_"):
            raise AttributeError(name)
        return self._functions.get(name, lambda *args, **kwargs: None)


def none(trainer):
    return {}


class Loop:
    """What callbacks use of a trainer, and the loop."""

    def __init__(self, component, lr):
        self.component = component
        self.optimizer = component.configure_optimizer(lr)

    def train(self, events, *, epochs=3, accumulation=1, scheduler=None):
        """Train; a scheduler is stepped after each update."""
        call = Hooks(**events(self))
        scheduler = scheduler(self.optimizer) if scheduler else None
        batch = self.component.collate([self.component.preprocess(row) for row in ROWS[:BATCH]])
        nb_batches = len(ROWS) // BATCH
        call.on_train_begin(config=None)
        for epoch in range(1, epochs + 1):
            call.on_epoch_begin(epoch=epoch)
            for step in range(nb_batches):
                call.on_step_begin(step=step, nb_batches=nb_batches, phase="train")
                _, loss = self.component.forward(batch, return_loss=True, eval_mode=False)
                (loss / accumulation).backward()
                if (step + 1) % accumulation == 0 or step + 1 == nb_batches:
                    self.optimizer.step()
                    self.optimizer.zero_grad()
                    if scheduler is not None:
                        scheduler.step()
                call.on_step_end(step=step, nb_batches=nb_batches, phase="train")
            call.on_epoch_end(metrics={}, epoch=epoch, epoch_duration=0.0)


def ours(folder, component, events=none, *, epochs=3, accumulation=1, scheduler=None, **more):
    """Train a component on the same rows with our Trainer, and return the Trainer."""
    callback, resume = Hooks(), more.pop("resume", None)
    more.setdefault("options", Options(lr_scheduler_interval="step", order="medkit"))
    trainer = make(
        folder,
        component,
        train=ROWS,
        batch_size=BATCH,
        callback=callback,
        lr_scheduler_builder=scheduler,
        nb_training_epochs=epochs,
        gradient_accumulation_steps=accumulation,
        **{"learning_rate": 0.05, **more},
    )
    callback._functions.update(events(trainer))
    trainer.train(resume=resume)
    return trainer


def check(folder, make_component, events=none, *, lr=0.05, **more):
    """Train a component with our Trainer and another with the loop, and compare the weights."""
    actual, expected = make_component(), make_component()
    ours(folder, actual, events, learning_rate=lr, **more)
    loop = {n: more[n] for n in ("epochs", "accumulation", "scheduler") if n in more}
    Loop(expected, lr).train(events, **loop)
    for name, value in weights(expected).items():
        torch.testing.assert_close(weights(actual)[name], value, rtol=1e-4, atol=2e-6)
