"""A forward whose outputs cannot be traced is evaluated in torch and trained in JAX."""

import numpy as np
import pytest
import torch
from crf import CrfTagger, TagAccuracy
from trained import DATA, Accuracy, Classifier, Events, make, sentences, weights

from medjax_torch import BatchData, Options
from medjax_torch.graph import TraceError

SHORT = [{name: row[:4] for name, row in sentence.items()} for sentence in sentences(16)]


FOUR = Options(length_ladder=(4,))


def warned(caplog):
    return [r.getMessage() for r in caplog.records if "Evaluation runs in torch" in r.getMessage()]


@pytest.mark.parametrize("in_training", [False, True], ids=["in evaluation", "everywhere"])
def test_a_crf_is_trained_and_its_decoded_tags_are_scored(tmp_path, caplog, in_training):
    component, computer = CrfTagger(in_training), TagAccuracy()
    events = Events()
    trainer = make(
        tmp_path,
        component,
        train=SHORT,
        evaluated=SHORT,
        metrics_computer=computer,
        callback=events,
        learning_rate=5e-2,
        options=FOUR,
    )
    history = trainer.train()
    assert history[-1]["train"]["loss"] < history[0]["train"]["loss"]
    (warning,) = warned(caplog)
    assert "crf.py:" in warning
    assert "on an accelerator" in warning
    batches = list(trainer.eval_dataloader)
    with torch.no_grad():
        expected = [component.forward(batch, True, True) for batch in batches]
    for scored, (outputs, _) in zip(computer.outputs[-len(batches) :], expected, strict=True):
        assert isinstance(scored, BatchData)
        assert scored == outputs
    losses = [loss.item() for _, loss in expected]
    assert history[-1]["eval"]["loss"] == pytest.approx(np.mean(losses), rel=1e-5)
    assert trainer.evaluation_epoch(trainer.eval_dataloader) == pytest.approx(history[-1]["eval"])


def test_the_loss_alone_is_evaluated_in_jax(tmp_path, caplog):
    history = make(tmp_path, CrfTagger(), train=SHORT, evaluated=SHORT, options=FOUR).train()
    assert not warned(caplog)
    assert history[-1]["eval"]["loss"] < history[0]["eval"]["loss"]


def test_decoded_outputs_of_training_are_refused_by_name(tmp_path):
    trainer = make(
        tmp_path,
        CrfTagger(True),
        train=SHORT,
        evaluated=SHORT,
        metrics_computer=TagAccuracy(),
        do_metrics_in_training=True,
        options=FOUR,
    )
    with pytest.raises(TraceError, match=r"do_metrics_in_training.* at .*crf\.py:\d+.*'tags'"):
        trainer.train()


class ByNumpy(Classifier):
    """Returns names of classes, made by numpy of the logits, always."""

    def forward(self, batch, return_loss, eval_mode):
        outputs, loss = super().forward(batch, return_loss, eval_mode)
        classes = outputs["logits"].detach().cpu().numpy().argmax(-1)
        noise = torch.rand(()).item() + np.random.rand() if eval_mode else 0
        return BatchData(
            **outputs, names=[f"class {number}" for number in classes], noise=noise
        ), loss


@pytest.mark.slow
def test_numpy_makes_names_for_the_evaluation(tmp_path, caplog):
    component, computer = ByNumpy(), Accuracy()
    state = torch.get_rng_state(), np.random.get_state()[1].copy()
    trainer = make(tmp_path, component, metrics_computer=computer)
    plain = make(tmp_path / "plain", Classifier(), metrics_computer=Accuracy())
    history = trainer.train()
    assert len(warned(caplog)) == 1
    for row, other in zip(history, plain.train(), strict=True):
        assert row["train"] == pytest.approx(other["train"], rel=1e-6)
        assert row["eval"] == pytest.approx(other["eval"], rel=1e-5)
    for scored in computer.outputs:
        assert scored["names"] == [f"class {int(row.argmax())}" for row in scored["logits"]]
    assert len({scored["noise"] for scored in computer.outputs}) == 1  # reproducible
    assert state is not None


def test_generators_are_left_alone(tmp_path):
    trainer = make(tmp_path, ByNumpy(), metrics_computer=Accuracy())
    before = torch.get_rng_state(), np.random.get_state()[1].copy()
    trainer.evaluation_epoch(trainer.eval_dataloader)
    assert torch.equal(before[0], torch.get_rng_state())
    assert (before[1] == np.random.get_state()[1]).all()


@pytest.mark.parametrize("arithmetic", [pytest.param("medkit", marks=pytest.mark.slow), "exact"])
def test_the_loss_is_weighed_as_in_jax(tmp_path, arithmetic):
    options = Options(loss_arithmetic=arithmetic)
    losses = [
        make(tmp_path / kind.__name__, kind(), metrics_computer=Accuracy(), options=options).train()
        for kind in (ByNumpy, Classifier)
    ]
    for row, other in zip(*losses, strict=True):
        assert row["eval"]["loss"] == pytest.approx(other["eval"]["loss"], rel=1e-5)


def test_the_component_is_left_as_it_was(tmp_path):
    component = ByNumpy()
    component.model.register_buffer("seen", torch.zeros(()))
    trainer = make(tmp_path, component, metrics_computer=Accuracy(), train=DATA[:8])
    before = weights(component)
    trainer.evaluation_epoch(trainer.eval_dataloader)
    after = weights(component)
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert all(p.requires_grad for p in component.model.parameters())
