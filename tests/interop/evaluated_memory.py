"""Evaluates outside of training, and prints how many pages were cleared after each step."""

import json
import tempfile
from pathlib import Path

from pages import pages_cleared
from trained import make

import medjax_torch


class Watch(medjax_torch.TrainerCallback):
    def __init__(self):
        self.cleared = []

    def on_step_end(self, *args, **kwargs):
        self.cleared.append(pages_cleared())


if __name__ == "__main__":
    watch = Watch()
    with tempfile.TemporaryDirectory() as folder:
        trainer = make(Path(folder), callback=watch)
        trainer.evaluation_epoch(trainer.eval_dataloader)
    print(json.dumps(watch.cleared))
