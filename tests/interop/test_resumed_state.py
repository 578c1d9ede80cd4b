"""A resumed run finds the state that the whole run had: modes of modules, counts of components."""

import pytest
import torch
from trained import DATA, Classifier, make, same, weights

from medjax.callbacks import TrainerCallback
from medjax_torch import Options


class StoppedError(Exception):
    pass


class StopAt(TrainerCallback):
    """Stops after some steps of a phase."""

    def __init__(self, phase, count):
        self.phase, self.left = phase, count

    def on_step_end(self, step_idx, nb_batches, phase):
        if phase == self.phase:
            self.left -= 1
            if self.left == 0:
                raise StoppedError


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
