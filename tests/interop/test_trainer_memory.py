"""A Trainer's evaluation outside of training retains freed memory, as `train` does."""

from pages import PAGES, forget_settings, needs_glibc, pages_cleared
from trained import make

import medjax_torch

pytestmark = needs_glibc


class Watch(medjax_torch.TrainerCallback):
    def __init__(self):
        self.cleared = []

    def on_step_end(self, *args, **kwargs):
        self.cleared.append(pages_cleared())


def test_evaluation_outside_of_training_keeps_memory(tmp_path, monkeypatch):
    forget_settings(monkeypatch)
    watch = Watch()
    trainer = make(tmp_path, callback=watch)
    trainer.evaluation_epoch(trainer.eval_dataloader)
    assert watch.cleared
    assert max(watch.cleared) < PAGES / 10
