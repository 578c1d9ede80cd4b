"""The Trainer as used in medkit's scripts: events, overrides, metrics, errors, checkpoints."""

import importlib

import numpy as np
import pytest
import torch
from torch import nn
from trained import DATA, Accuracy, Classifier, Events, make, same, weights

import medjax_torch
from medjax import NonFiniteError
from medjax.callbacks import StopTraining
from medjax.data import ItemError
from medjax_torch import BatchData, Options, Trainer

NAMES = (
    "Trainer",
    "TrainerConfig",
    "TrainerCallback",
    "DefaultPrinterCallback",
    "BatchData",
    "MetricsComputer",
    "TrainableComponent",
)


def test_names_equal_medkits():
    for name in NAMES:
        assert hasattr(medjax_torch, name)
    for name in ("callbacks", "trainable_component", "trainer", "trainer_config", "utils"):
        importlib.import_module(f"medjax_torch.{name}")
    trainer = importlib.import_module("medjax_torch.trainer")
    constants = (trainer.OPTIMIZER_NAME, trainer.SCHEDULER_NAME, trainer.CONFIG_NAME)
    assert constants == ("optimizer.pt", "scheduler.pt", "trainer_config.yml")
    trainer.set_seed(5)
    assert torch.initial_seed() == 5


def test_protocols_need_no_inheritance():
    assert isinstance(Classifier(), medjax_torch.TrainableComponent)
    assert isinstance(Accuracy(), medjax_torch.MetricsComputer)


def test_batch_data_has_columns_and_rows():
    batch = BatchData(x=torch.arange(6).view(3, 2), text=["a", "b", "c"])
    assert len(batch) == 2
    assert batch["text"] == ["a", "b", "c"]
    assert type(batch[1]) is dict
    assert batch[1]["x"].tolist() == [2, 3]
    assert batch[:2]["text"] == ["a", "b"]
    with pytest.raises(KeyError):
        batch["y"]
    moved = batch.to_device(torch.device("meta"))
    assert moved is not batch
    assert moved["x"].device.type == "meta"
    assert moved["text"] is batch["text"]


def test_attributes_equal_medkits(tmp_path):
    trainer = make(tmp_path / "a" / "b", gradient_accumulation_steps=2)
    assert trainer.output_dir == tmp_path / "a" / "b"
    assert trainer.output_dir.is_dir()
    assert (trainer.batch_size, trainer.nb_training_epochs) == (8, 3)
    assert (trainer.dataloader_drop_last, trainer.dataloader_pin_memory) == (False, False)
    assert trainer.dataloader_nb_workers == 0
    assert trainer.device == torch.device("cpu")
    assert isinstance(trainer.optimizer, torch.optim.AdamW)
    assert trainer.lr_scheduler is None
    assert trainer.metrics_computer is None
    batch = next(iter(trainer.eval_dataloader))
    assert type(batch) is BatchData
    assert len(trainer.train_dataloader) == 6


def test_the_component_holds_the_trained_weights_and_the_folder_checkpoints_only(tmp_path):
    component = Classifier()
    before = weights(component)
    trainer = make(tmp_path, component)
    history = trainer.train()
    assert not same(before, weights(component))
    assert history[-1]["train"]["loss"] < history[0]["train"]["loss"]
    names = sorted(path.name for path in tmp_path.iterdir())
    assert all(name.startswith("checkpoint_") for name in names)
    assert {trainer.best_checkpoint, trainer.last_checkpoint} == set(tmp_path.iterdir())
    saved = torch.load(trainer.last_checkpoint / "model.pt", weights_only=True)
    assert same(saved, weights(component))


def test_the_order_of_events(tmp_path):
    events = Events()
    make(
        tmp_path, callback=events, nb_training_epochs=1, train=DATA[:16], evaluated=DATA[:8]
    ).train()
    # Waits depend on what has to be compiled, and are none of medkit's events.
    seen = [event for event in events.seen if event[0] != "on_wait"]
    step = ["on_step_begin", "on_step_end"]
    begin = ["on_train_begin", "on_epoch_begin", *step * 3]
    assert [name for name, _, _ in seen] == [*begin, "on_epoch_end", "on_save", "on_train_end"]
    assert seen[2] == ("on_step_begin", (0,), {"nb_batches": 2, "phase": "train"})
    assert set(seen[-3][2]) == {"metrics", "epoch", "epoch_duration"}


def test_every_method_may_be_overridden(tmp_path):
    called = []

    class Mine(Trainer):
        def get_dataloader(self, data, shuffle):
            called.append("get_dataloader")
            return super().get_dataloader(data, shuffle)

        def training_epoch(self):
            called.append("training_epoch")
            return super().training_epoch() | {"extra": 1.0}

        def evaluation_epoch(self, eval_dataloader):
            called.append("evaluation_epoch")
            return super().evaluation_epoch(eval_dataloader) | {"mine": 2.0}

        def make_forward_pass(self, inputs, eval_mode):
            outputs, loss = super().make_forward_pass(inputs, eval_mode)
            return outputs, loss * 2

        def update_learning_rate(self, eval_metrics):
            called.append(sorted(eval_metrics))
            for group in self.optimizer.param_groups:
                group["lr"] = 0.0

        def save(self, epoch):
            called.append("save")
            return super().save(epoch)

    component = Classifier()
    trainer = make(tmp_path, component, kind=Mine, nb_training_epochs=2, checkpoint_metric="mine")
    history = trainer.train()
    epoch = ["training_epoch", "evaluation_epoch", ["loss", "mine"], "save"]
    assert called == ["get_dataloader"] * 2 + epoch * 2
    assert history[0]["train"]["extra"] == 1.0
    # From the second epoch on, the learning rate is 0.
    assert history[0]["eval"]["loss"] == history[1]["eval"]["loss"]
    plain = make(tmp_path / "plain", Classifier(), nb_training_epochs=1).train()
    assert history[0]["train"]["loss"] == pytest.approx(2 * plain[0]["train"]["loss"], rel=0.05)


def test_an_epoch_that_trains_nothing_is_an_error(tmp_path):
    class Idle(Trainer):
        def training_epoch(self):
            return {"loss": 0.0}

    with pytest.raises(RuntimeError, match="trained no batch"):
        make(tmp_path, kind=Idle).train()


def test_a_loss_of_none_and_metrics_that_are_missing(tmp_path):
    class Lossless(Classifier):
        def forward(self, batch, return_loss, eval_mode):
            return super().forward(batch, False, eval_mode)

    with pytest.raises(ValueError, match="The component did not return a 'loss' from the input"):
        make(tmp_path / "a", Lossless()).train()
    with pytest.raises(ValueError, match="Checkpoint metric 'f1' not found"):
        make(tmp_path / "b", checkpoint_metric="f1").train()
    assert not list((tmp_path / "b").iterdir())
    trainer = make(
        tmp_path / "c",
        metric_to_track_lr="f1",
        lr_scheduler_builder=torch.optim.lr_scheduler.ReduceLROnPlateau,
    )
    message = "Learning scheduler needs an eval metric to update the learning rate, 'f1'"
    with pytest.raises(ValueError, match=message):
        trainer.train()


def test_callbacks_may_stop_training_and_several_are_called(tmp_path):
    class Stop:
        def on_epoch_end(self, metrics, epoch, epoch_time):
            if epoch == 2:
                raise StopTraining("enough")

    events = Events()
    history = make(tmp_path, callback=[Stop(), events], nb_training_epochs=5).train()
    assert len(history) == 2
    assert events.seen[-1][0] == "on_train_end"


def test_an_exception_leaves_the_trained_weights(tmp_path):
    component = Classifier()
    before = weights(component)

    class Fails:
        def on_step_end(self, step_idx, nb_batches, phase):
            if step_idx == 3:
                raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        make(tmp_path, component, callback=Fails()).train()
    assert not same(before, weights(component))
    assert all(type(p) is nn.Parameter for p in component.model.parameters())
    component.forward(component.collate(DATA[:2]), return_loss=True, eval_mode=False)


def test_an_item_that_cannot_be_preprocessed_is_named(tmp_path):
    class Picky(Classifier):
        def preprocess(self, item):
            if item is DATA[13]:
                raise ValueError("no text")
            return item

    with pytest.raises(ItemError, match="item 13 of the dataset"):
        make(tmp_path, Picky()).train()


def test_a_loss_that_is_not_finite_stops_with_its_items(tmp_path):
    data = [*DATA[:20], {"x": torch.full((6,), float("inf")), "y": 0}]
    with pytest.raises(NonFiniteError) as caught:
        make(tmp_path, train=data).train()
    assert 20 in caught.value.indices
    history = make(tmp_path, train=data, options=Options(on_non_finite="skip")).train()
    assert np.isfinite(history[-1]["train"]["loss"])


def test_evaluation_and_saving_outside_of_training(tmp_path):
    component = Classifier()
    trainer = make(tmp_path, component, metrics_computer=Accuracy())
    scores = trainer.evaluation_epoch(trainer.eval_dataloader)
    with torch.no_grad():
        batches = list(trainer.eval_dataloader)
        losses = [component.forward(b, return_loss=True, eval_mode=True)[1] for b in batches]
    assert scores["loss"] == pytest.approx(float(torch.stack(losses).mean()), rel=1e-5)
    folder = trainer.save(7)
    assert same(torch.load(f"{folder}/model.pt", weights_only=True), weights(component))
    trainer.train()
    again = trainer.evaluation_epoch(trainer.eval_dataloader)
    assert again["loss"] < scores["loss"]
