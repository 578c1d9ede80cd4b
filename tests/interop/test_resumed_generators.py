"""A resumed run draws what the whole run draws, where data and samplers draw from generators."""

import random

import numpy as np
import pytest
import torch
from stopping import StopAt, StoppedError
from torch.utils.data import DataLoader, Dataset, WeightedRandomSampler
from trained import DATA, Classifier, make, same, sentences, weights
from trained import Tagger as PlainTagger

from medjax.checkpoint import CheckpointError
from medjax_torch import Options, Trainer
from medjax_torch.batches import generators_of, make_dataloader, restore, states_of
from medjax_torch.session.kept_generators import KeptGenerators


class Noisy(Dataset):
    """Points with noise from one of the generators."""

    def __init__(self, kind):
        self.kind = kind
        self.own = np.random.default_rng(5)

    def __len__(self):
        return 24

    def __getitem__(self, index):
        item = DATA[index]
        noise = {
            "torch": lambda: torch.randn(6),
            "numpy": lambda: torch.from_numpy(np.random.normal(size=6).astype(np.float32)),
            "random": lambda: torch.tensor([random.random() for _ in range(6)]),
            "own": lambda: torch.from_numpy(self.own.normal(size=6).astype(np.float32)),
        }
        return {**item, "x": item["x"] + 0.5 * noise[self.kind]()}


class Sampled(Trainer):
    def get_dataloader(self, data, shuffle):
        if not shuffle:
            return super().get_dataloader(data, shuffle)
        sampler = WeightedRandomSampler(torch.arange(1.0, len(data) + 1), len(data))
        collate = self.component.collate
        return DataLoader(data, self.batch_size, sampler=sampler, collate_fn=collate)


class SampledFromOwn(Sampled):
    def get_dataloader(self, data, shuffle):
        loader = super().get_dataloader(data, shuffle)
        if shuffle:
            loader.sampler.generator = torch.Generator().manual_seed(9)
        return loader


class Tagger(PlainTagger):
    """Masks words in preprocess, and items have several lengths."""

    def preprocess(self, item):
        kept = [number if np.random.random() > 0.3 else 0 for number in item["input_ids"]]
        return {**item, "input_ids": kept}


def resumed_as_whole(folder, settings, component=Classifier, stop=("train", 5)):
    """Check that a run stopped after some batches and resumed ends as the whole one."""
    options = Options(save_interval_steps=1, **settings.pop("options", {}))

    def trainer(name, **more):
        own = component()
        return own, make(folder / name, own, options=options, **settings, **more)

    expected, whole = trainer("whole")
    history = whole.train()
    _, first = trainer("cut", callback=StopAt(*stop))
    with pytest.raises(StoppedError):
        first.train()
    resumed, second = trainer("cut")
    assert second.train(resume="auto") == history
    assert same(weights(expected), weights(resumed))


@pytest.mark.parametrize(
    "kind",
    ["torch", *(pytest.param(k, marks=pytest.mark.slow) for k in ("numpy", "random")), "own"],
)
def test_a_dataset_that_draws(tmp_path, kind):
    resumed_as_whole(tmp_path, {"train": Noisy(kind), "evaluated": Noisy(kind)} | _fresh(kind))


def _fresh(kind):
    """Give each trainer a dataset of its own, as a resumed process has."""
    kinds = type("Fresh", (Trainer,), {})

    def get_dataloader(self, data, shuffle):
        return Trainer.get_dataloader(self, Noisy(kind), shuffle)

    kinds.get_dataloader = get_dataloader
    return {"kind": kinds, "nb_training_epochs": 2}


@pytest.mark.parametrize("stop", [("train", 4), ("eval", 2)], ids=["next epoch", "evaluation"])
def test_a_dataset_that_draws_is_resumed_anywhere(tmp_path, stop):
    data = {"train": Noisy("torch"), "evaluated": Noisy("torch"), "nb_training_epochs": 3}
    resumed_as_whole(tmp_path, data, stop=stop)


@pytest.mark.parametrize(
    ("count", "kind"),
    [
        pytest.param(4, Sampled, id="next epoch", marks=pytest.mark.slow),
        pytest.param(5, Sampled, id="within"),
        pytest.param(4, SampledFromOwn, id="own, next epoch"),
        pytest.param(5, SampledFromOwn, id="own, within", marks=pytest.mark.slow),
    ],
)
def test_a_users_sampler(tmp_path, kind, count):
    settings = {"kind": kind, "train": DATA[:24], "evaluated": DATA[:8]}
    resumed_as_whole(tmp_path, settings, stop=("train", count))


def test_items_that_draw_and_are_grouped_by_length(tmp_path):
    settings = {"train": sentences(), "evaluated": sentences(8), "options": {"length_window": 2}}
    resumed_as_whole(tmp_path, settings, component=Tagger)


@pytest.mark.slow
def test_workers_that_draw(tmp_path):
    data = {"train": Noisy("torch"), "evaluated": DATA[:8], "nb_training_epochs": 2}
    resumed_as_whole(tmp_path, data | {"dataloader_nb_workers": 2})


def test_another_seed_applies_and_the_first_batch_draws_nothing(tmp_path):
    def losses(name, **settings):
        trainer = make(tmp_path / name, train=Noisy("numpy"), evaluated=DATA[:8], **settings)
        before = np.random.get_state(legacy=False)["state"]["pos"]
        history = trainer.train(resume=settings.get("seed") and "auto")
        return before, [row["train"]["loss"] for row in history]

    _, first = losses("run", nb_training_epochs=1)
    _, other = losses("run", nb_training_epochs=2, seed=8)
    _, same_seed = losses("again", nb_training_epochs=2)
    assert first[0] == other[0] == same_seed[0]
    assert other[1] != same_seed[1]


def test_states_go_through_and_wrong_ones_are_refused():
    data = Noisy("own")
    data.parts = [np.random.RandomState(1), random.Random(2), torch.Generator().manual_seed(3)]
    loader = make_dataloader(data, Classifier(), batch_size=4, shuffle=True, seed=3)
    generators = generators_of(loader)
    held = [path for path in generators if path.startswith("loader 0.dataset")]
    assert len(held) == 4
    states = states_of(generators)
    drawn = [data.own.random(), *(part.random() for part in data.parts[:2])]
    assert states_of(generators) != states
    assert restore(generators, states | {"gone": 1}) == ["gone"]
    assert [data.own.random(), *(part.random() for part in data.parts[:2])] == drawn
    with pytest.raises(ValueError, match="state of the random generator torch is not one of a Gen"):
        restore(generators, {"torch": states["random"]})


def test_a_damaged_record_is_refused():
    with pytest.raises(CheckpointError, match=r"states of the random generators .* damaged"):
        KeptGenerators().load_state_dict({"now": 3})
