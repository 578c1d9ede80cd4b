"""Programs compiled before the first step, while the next shapes are traced."""

import numpy as np
from trained import Tagger, make, same, sentences, weights

from medjax.callbacks import TrainerCallback
from medjax.step import training
from medjax_torch import Options
from medjax_torch.session import ahead

LADDER = Options(length_ladder=(16, 32), length_window=10)


class Counts(TrainerCallback):
    """Records how many graphs and programs there are after each batch."""

    trainer = None

    def __init__(self):
        self.seen = []

    def on_step_end(self, *args, **kwargs):
        cost = self.trainer.conversion_cost
        self.seen.append((cost.nb_graphs, cost.nb_compilations))


def trained(folder):
    counts, data = Counts(), sentences()
    component = Tagger(dropout=0.2)
    trainer = counts.trainer = make(
        folder, component, train=data, evaluated=data, callback=counts, options=LADDER
    )
    return trainer.train(), weights(component), counts.seen


def test_all_shapes_are_compiled_before_the_first_step_and_train_alike(tmp_path, monkeypatch):
    monkeypatch.setattr(training, "LARGE", 1)
    history, learnt, counts = trained(tmp_path / "ahead")
    # Two lengths in each mode, each a graph and a program, and the update.
    assert set(counts) == {(4, 5)}

    monkeypatch.setattr(ahead, "first_of_shapes", lambda *args: [])
    same_history, same_weights, later = trained(tmp_path / "later")
    assert later[0] == (1, 2)
    assert later[-1] == counts[-1]
    assert history == same_history
    assert same(learnt, same_weights)


def test_a_small_component_is_not_prepared_ahead(tmp_path):
    _, _, counts = trained(tmp_path)
    assert counts[0] == (1, 1)


def test_an_epoch_entered_late_prepares_what_is_left_of_it(tmp_path):
    data = sentences()
    trainer = make(tmp_path, Tagger(), train=data, evaluated=data, options=LADDER)
    loader = trainer.train_dataloader
    for start in range(len(loader)):
        firsts = dict(ahead.first_of_shapes(loader, 1, start))
        shapes = [np.shape(batch["input_ids"])[0] for batch in firsts.values()]
        assert min(firsts) == start
        assert len(shapes) == len(firsts) <= 2
