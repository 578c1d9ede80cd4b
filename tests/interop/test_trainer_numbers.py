"""Batches without a finite loss or without labels, and stopping within accumulation."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F
from trained import DATA, Accuracy, Classifier, Tagger, make, same, sentences, weights

import medjax
from medjax_torch import Options
from medjax_torch.callbacks import StopTraining

BROKEN = {"x": torch.full((6,), float("nan")), "y": 0}


@pytest.mark.parametrize(("accumulation", "batches"), [(1, 6), (2, 6), (2, 5)])
def test_a_scheduler_by_step_skips_skipped_batches(tmp_path, accumulation, batches):
    data = [*DATA[: 8 * batches - 1], BROKEN][-8 * batches :]
    trainer = make(
        tmp_path,
        train=data,
        gradient_accumulation_steps=accumulation,
        lr_scheduler_builder=lambda optimizer: torch.optim.lr_scheduler.StepLR(optimizer, 1, 0.9),
        options=Options(lr_scheduler_interval="step", on_non_finite="skip"),
    )
    rates = []

    class Rates:
        def on_step_end(self, step_idx, nb_batches, phase):
            if phase == "train":
                session = trainer._run.session
                rates.append((int(session.state.step), trainer.optimizer.param_groups[0]["lr"]))

    trainer.callback = Rates()
    trainer.train()
    assert len(rates) == 3 * -(-len(data) // 8)
    for updates, rate in rates:
        assert rate == pytest.approx(1e-2 * 0.9**updates)
    assert trainer.lr_scheduler.last_epoch == rates[-1][0]
    if accumulation == 1:
        assert rates[-1][0] == len(rates) - 3  # one batch of each epoch was skipped


def test_outputs_of_a_skipped_batch_are_not_scored(tmp_path, caplog):
    computer = Accuracy()
    make(
        tmp_path,
        train=[*DATA[:23], BROKEN],
        nb_training_epochs=1,
        do_metrics_in_training=True,
        metrics_computer=computer,
        options=Options(on_non_finite="skip"),
    ).train()
    assert [len(inputs["y"]) for inputs in computer.inputs] == [8, 8, 8, 8, 4]  # 2 train, 3 eval
    assert all(torch.isfinite(inputs["x"]).all() for inputs in computer.inputs)
    assert "epoch 1: the loss or a gradient was not finite in 1 of 3 batches" in caplog.text


@pytest.mark.parametrize("arithmetic", ["medkit", "exact"])
def test_a_batch_of_ignored_labels_has_no_weight(tmp_path, arithmetic):
    """torch's loss is NaN for this batch, and so is the loss of medkit's epoch."""
    good = sentences(1)[0]
    ignored = {"input_ids": [3, 1, 4], "labels": [-100, -100, -100]}
    options = Options(loss_arithmetic=arithmetic)
    results = []
    for number, data in enumerate(([good], [good, ignored], [ignored, good])):
        component = Tagger()
        trainer = make(
            tmp_path / str(number),
            component,
            train=data,
            evaluated=data,
            batch_size=1,
            nb_training_epochs=1,
            options=options,
        )
        results.append((trainer.train(), weights(component)))
    (history, alone), *others = results
    assert np.isfinite(history[0]["train"]["loss"])
    for also, with_ignored in others:
        assert also == history
        assert same(alone, with_ignored)


def test_labels_weigh_alike_in_batches_without_ignored_ones(tmp_path):
    """A batch of sentences of one length has no -100; so has every batch of a single sentence."""
    data = sentences(4)
    assert len({len(item["labels"]) for item in data}) > 1
    histories, ends = [], []
    for size in (1, 4):
        component = Tagger()
        component.optimizer = torch.optim.SGD
        trainer = make(
            tmp_path / str(size),
            component,
            train=data,
            evaluated=data,
            learning_rate=0.5,
            batch_size=size,
            gradient_accumulation_steps=4 // size,
            options=Options(loss_arithmetic="exact"),
        )
        histories.append(trainer.train())
        ends.append(weights(component))
    for row, other in zip(*histories, strict=True):
        for phase in ("train", "eval"):
            assert row[phase]["loss"] == pytest.approx(other[phase]["loss"], rel=1e-5)
    for name, value in ends[0].items():
        np.testing.assert_allclose(value, ends[1][name], rtol=1e-4, atol=1e-6)


def test_a_stop_within_a_group_completes_its_update(tmp_path):
    class Stop:
        steps = 0

        def on_step_end(self, step_idx, nb_batches, phase):
            self.steps += phase == "train"
            if self.steps == 1:
                raise StopTraining("enough")

    components = []
    for number, settings in enumerate(({"callback": Stop()}, {"options": Options(max_steps=1)})):
        trainer = make(tmp_path / str(number), gradient_accumulation_steps=3, **settings)
        trainer.train()
        components.append(weights(trainer.component))
    assert same(*components)


def test_a_plateau_schedule_of_medjax_is_that_of_torch(tmp_path):
    schedules = {
        "medjax": medjax.reduce_on_plateau(factor=0.5, patience=1, threshold=1e9),
        "torch": lambda optimizer: torch.optim.lr_scheduler.ReduceLROnPlateau(
            optimizer, factor=0.5, patience=1, threshold=1e9
        ),
    }
    trained = {}
    for name, schedule in schedules.items():
        component = Classifier(optimizer=torch.optim.SGD)
        make(
            tmp_path / name,
            component,
            nb_training_epochs=6,
            learning_rate=0.1,
            lr_scheduler_builder=schedule,
        ).train()
        trained[name] = weights(component)
    for name, weight in trained["torch"].items():
        assert (trained["medjax"][name] - weight).abs().max() < 1e-6, name


def test_a_plateau_schedule_resumes_bit_for_bit(tmp_path):
    def trained(folder, epochs, resume=None):
        component = Classifier(optimizer=torch.optim.SGD)
        make(
            folder,
            component,
            nb_training_epochs=epochs,
            learning_rate=0.1,
            lr_scheduler_builder=medjax.reduce_on_plateau(factor=0.5, patience=1, threshold=1e9),
        ).train(resume=resume)
        return weights(component)

    complete = trained(tmp_path / "complete", 6)
    trained(tmp_path / "parts", 3)
    assert same(trained(tmp_path / "parts", 6, resume="auto"), complete)


class Regularised(Tagger):
    """Adds to its loss the mean of all logits, those of padding included, once `alpha` is set."""

    alpha = 0.0

    def forward(self, batch, return_loss, eval_mode):
        outputs, loss = super().forward(batch, return_loss, eval_mode)
        return outputs, loss + self.alpha * outputs["logits"].square().mean()


@pytest.mark.parametrize(
    "values", [(0.5, 0.5), pytest.param((0.0, 0.5), marks=pytest.mark.slow), (0.0, 1e-7, 0.5)]
)
def test_padding_is_tested_again_when_forward_reads_another_value(tmp_path, caplog, values):
    data, histories = sentences(), []

    class Sets:
        def on_epoch_begin(self, epoch):
            component.alpha = values[epoch - 1]

    for number, padding in enumerate(({}, {"input_ids": None, "labels": None})):
        component = Regularised()
        component.optimizer = torch.optim.SGD  # Adam takes whole steps for the faintest gradient
        trainer = make(
            tmp_path / str(number),
            component,
            train=data,
            evaluated=data[:8],
            nb_training_epochs=len(values),
            callback=Sets(),
            options=Options(padding=padding),
        )
        histories.append(trainer.train())
    for padded, exact in zip(*histories, strict=True):
        for name in ("train", "eval"):
            assert padded[name]["loss"] == pytest.approx(exact[name]["loss"], rel=1e-5)
    assert "padding input_ids, labels is not harmless, because padding changes" in caplog.text


def test_a_batch_without_labels_counts_if_its_loss_is_a_number(tmp_path):
    """As in torch, where another task of the component may give the loss of such a batch."""

    class TwoTasks(Tagger):
        def forward(self, batch, return_loss, eval_mode):
            outputs, _ = super().forward(batch, return_loss, eval_mode)
            counts = (batch["labels"] != -100).sum().clamp(min=1)
            tags = F.cross_entropy(outputs["logits"].mT, batch["labels"], reduction="sum") / counts
            return outputs, tags + outputs["logits"].square().mean()

    ignored = {"input_ids": [3, 1, 4], "labels": [-100, -100, -100]}
    component = TwoTasks()
    before = weights(component)
    trainer = make(
        tmp_path,
        component,
        train=[ignored],
        evaluated=[ignored],
        batch_size=1,
        nb_training_epochs=1,
        options=Options(padding={"input_ids": None}),
    )
    (row,) = trainer.train()
    assert not same(before, weights(component))
    assert row["train"]["loss"] > 0
    assert row["eval"]["loss"] > 0
