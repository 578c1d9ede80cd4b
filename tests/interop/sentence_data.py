"""The data methods of a component: sentences of numbers, and collate that pads to the longest."""

import os
import signal
import time

import jax
import torch

from medjax_torch import Options

SENTENCES = [list(range(1, 2 + 7 * number % 13)) for number in range(23)]


def arguments_of(settings):
    """Return arguments of `make_dataloader`, where options are an object of their own."""
    own = {"nb_workers", "drop_last", "pin_memory"}
    options = {name: value for name, value in settings.items() if name not in own}
    rest = {name: value for name, value in settings.items() if name in own}
    return {**rest, "options": Options(**options)}


class Batch(dict):
    """A user's subclass of dict."""


class SentenceComponent:
    def __init__(self):
        self.preprocessed = []
        self.weight = torch.nn.Linear(2, 2)

    def preprocess(self, item):
        self.preprocessed.append(tuple(item))
        return {"input_ids": list(item), "labels": [len(item)] * len(item)}

    def collate(self, examples):
        longest = max(len(example["input_ids"]) for example in examples)
        return Batch(
            {
                name: torch.tensor([e[name] + [0] * (longest - len(e[name])) for e in examples])
                for name in ("input_ids", "labels")
            }
        )


class RandomComponent(SentenceComponent):
    """A component whose preprocess is random, including the length."""

    def preprocess(self, item, rng):
        self.preprocessed.append(tuple(item))
        if rng is not None:
            item = list(item) + [int(rng.integers(1, 9))] * int(rng.integers(1, 9))
        return {"input_ids": item, "labels": item}


class TellingComponent(SentenceComponent):
    """Returns properties of the process that preprocesses, and refuses item 6."""

    def preprocess(self, item):
        if item == 6:
            raise KeyError("tokens")
        handler = signal.getsignal(signal.SIGINT) == signal.SIG_IGN
        return os.getpid(), jax.config.jax_platforms, handler, item

    def collate(self, examples):
        return {"told": examples}


class DyingComponent(TellingComponent):
    def preprocess(self, item):
        os._exit(3)


class HangingComponent(TellingComponent):
    def preprocess(self, item):
        time.sleep(600)
