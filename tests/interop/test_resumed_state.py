"""A resumed run finds the state that the whole run had: modes, and counts of component and data."""

import signal

import pytest
import torch
import tqdm
from stopping import StopAt, StoppedError
from torch.utils.data import ConcatDataset, Dataset
from trained import DATA, Classifier, make, same, weights

from medjax_torch import Options


def resumed_as_whole(folder, component, stop, *, again=False, **settings):
    """Check that a run that was stopped and resumed ends as the whole one.

    Parameters
    ----------
    component : callable
        Makes a component.
    stop : (str, int)
        The phase, and after how many of its steps.
    again : bool
        Whether the stopped component itself goes on, as in a notebook.
    """
    options = Options(save_interval_steps=1)
    fields = {"train": DATA[:24], "evaluated": DATA[:16], "nb_training_epochs": 2, **settings}

    def trainer(name, own, **more):
        made = {name: value() if callable(value) else value for name, value in fields.items()}
        return make(folder / name, own, options=options, **made, **more)

    whole, cut = component(), component()
    history = trainer("whole", whole).train()
    with pytest.raises(StoppedError):
        trainer("cut", cut, callback=StopAt(*stop)).train()
    resumed = cut if again else component()
    assert trainer("cut", resumed).train(resume="auto") == history
    assert same(weights(whole), weights(resumed))


class Augmenting(Classifier):
    """Preprocess augments in training, as the mode of the model says."""

    def __init__(self):
        super().__init__(optimizer=torch.optim.SGD)

    def preprocess(self, item):
        return {**item, "x": item["x"] * (1.5 if self.model.training else 1.0)}


@pytest.mark.parametrize(
    ("stop", "again"),
    [(("train", 4), False), (("eval", 3), True)],
    ids=["next epoch", "the same component, in evaluation"],
)
def test_the_mode_before_the_first_forward_is_that_of_the_whole_run(tmp_path, stop, again):
    resumed_as_whole(tmp_path, Augmenting, stop, again=again)


def test_a_mode_that_only_the_user_sets_is_the_users(tmp_path):
    class Steady(Classifier):
        """Forward leaves the mode as it is."""

        def forward(self, batch, return_loss, eval_mode):
            loss = torch.nn.functional.cross_entropy(self.model(batch["x"]), batch["y"])
            return {"logits": self.model(batch["x"])}, loss

    make(tmp_path, Steady(), nb_training_epochs=1).train()
    component = Steady()
    component.model.eval()
    make(tmp_path, component, nb_training_epochs=2).train(resume="auto")
    assert not component.model.training


class Points(Dataset):
    """Points that are scaled by how many were read before."""

    shared = 0

    def __init__(self, items=DATA[:24]):
        self.items, self.count, self.log, self.rows, self.is_ready = items, 0, [], None, False

    def __len__(self):
        return len(self.items)

    def __getitem__(self, index):
        self.count += 1
        self.shared += 1
        item = self.items[index]
        return {**item, "x": item["x"] * (1 + (self.count + self.shared) / 100)}


class Logging(Points):
    def __getitem__(self, index):
        self.log.append(index)
        return super().__getitem__(index)


class WithBar(Points):
    """Has an object of another package, which changes at each access as caches do."""

    def __init__(self):
        super().__init__()
        self.bar = tqdm.tqdm(disable=True)
        self.bar.last_print_t = []

    def __getitem__(self, index):
        self.bar.last_print_t = [index]
        return super().__getitem__(index)


class Loading(Points):
    """Has a flag that says that rows are there, which a resumed run has to load again."""

    def __getitem__(self, index):
        if not self.is_ready:
            self.rows, self.is_ready = dict(enumerate(self.items)), True
        return self.rows[index]


class Collating(Classifier):
    """Counts batches and draws, so that a resumed run reads the first batches again."""

    def __init__(self):
        super().__init__(optimizer=torch.optim.SGD)
        self.count, self.odd = 0, False

    def preprocess(self, item):
        return {**item, "x": item["x"] + 0.1 * torch.randn(6)}

    def collate(self, examples):
        self.count += 1
        self.odd = not self.odd
        batch = super().collate(examples)
        return type(batch)(batch, x=batch["x"] * (1 + self.count / 20 + self.odd))


STOPS = [
    ("train", 3),
    pytest.param(("train", 4), marks=pytest.mark.slow),
    pytest.param(("eval", 1), marks=pytest.mark.slow),
]


@pytest.mark.parametrize("stop", [*STOPS, ("train", 5)], ids=str)
def test_counts_of_component_and_data_go_on(tmp_path, stop):
    resumed_as_whole(tmp_path, Collating, stop, train=lambda: ConcatDataset([Points()]))


def test_a_save_in_evaluation_has_the_values_before_it(tmp_path):
    class Stopping(Collating):
        """Asks to be stopped, as a scheduler does, at the second batch of the first evaluation."""

        def collate(self, examples):
            if self.count == 5:
                signal.raise_signal(signal.SIGTERM)
            return super().collate(examples)

    def trainer(kind, name):
        component = kind()
        fields = {"train": DATA[:24], "evaluated": DATA[:24], "nb_training_epochs": 2}
        return component, make(tmp_path / name, component, **fields)

    whole, one = trainer(Collating, "whole")
    history = one.train()
    _, cut = trainer(Stopping, "cut")
    with pytest.raises(SystemExit):
        cut.train()
    resumed, again = trainer(Collating, "cut")
    assert again.train(resume="auto") == history
    assert (resumed.count, same(weights(whole), weights(resumed))) == (whole.count, True)


@pytest.mark.parametrize(
    ("kind", "names"),
    [
        (Logging, "count, training data of 24 items.shared, training data of 24 items.log"),
        (Loading, "is_ready"),
    ],
    ids=["a list", "loaded rows"],
)
def test_what_a_checkpoint_cannot_hold_of_data_is_named(tmp_path, caplog, kind, names):
    make(tmp_path, train=kind(), evaluated=DATA[:8], nb_training_epochs=1).train()
    data = kind()
    make(tmp_path, train=data, evaluated=DATA[:8], nb_training_epochs=2).train(resume="auto")
    assert f"Resuming: training data of 24 items.{names} changed in training" in caplog.text
    assert caplog.text.count("a checkpoint does not hold") == 1
    assert data.count == (24 if kind is Logging else 0)


def test_objects_of_other_packages_do_not_count(tmp_path, caplog):
    make(tmp_path, train=WithBar(), evaluated=DATA[:8], nb_training_epochs=1).train()
    data = WithBar()
    make(tmp_path, train=data, evaluated=DATA[:8], nb_training_epochs=2).train(resume="auto")
    assert data.count == 48
    assert "does not hold" not in caplog.text


def test_values_of_data_of_another_length_are_not_used(tmp_path, caplog):
    make(tmp_path, train=Points(), evaluated=DATA[:8], nb_training_epochs=1).train()
    data = Points(DATA[:16])
    make(tmp_path, train=data, evaluated=DATA[:8], nb_training_epochs=2).train(resume="auto")
    assert data.count == 16
    assert "items.count was 24, but component and data no longer have this value" in caplog.text
