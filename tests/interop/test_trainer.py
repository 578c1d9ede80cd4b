"""The Trainer as medkit's scripts use it: events, overrides, metrics, errors, checkpoints."""

import importlib

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from trained import DATA, Accuracy, Classifier, Events, Tagger, make, same, sentences, weights

import medjax_torch
from medjax import NonFiniteError
from medjax.callbacks import StopTraining
from medjax.data import ItemError
from medjax_torch import BatchData, Options, Trainer
from medjax_torch.batches import epoch_batches
from medjax_torch.graph import TraceError
from medjax_torch.verification import VerificationError

NAMES = (
    "Trainer",
    "TrainerConfig",
    "TrainerCallback",
    "DefaultPrinterCallback",
    "BatchData",
    "MetricsComputer",
    "TrainableComponent",
)


def test_the_names_are_medkits():
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


def test_attributes_are_medkits(tmp_path):
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
    names = [name for name, _, _ in events.seen]
    step = ["on_step_begin", "on_step_end"]
    begin = ["on_train_begin", "on_epoch_begin", *step * 3]
    assert names == [*begin, "on_epoch_end", "on_save", "on_train_end"]
    assert events.seen[2] == ("on_step_begin", (0,), {"nb_batches": 2, "phase": "train"})
    assert set(events.seen[-3][2]) == {"metrics", "epoch", "epoch_duration"}


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
    # The rate is 0 from the second epoch on.
    assert history[0]["eval"]["loss"] == history[1]["eval"]["loss"]
    plain = make(tmp_path / "plain", Classifier(), nb_training_epochs=1).train()
    assert history[0]["train"]["loss"] == pytest.approx(2 * plain[0]["train"]["loss"], rel=0.05)


def test_an_epoch_that_trains_nothing_is_an_error(tmp_path):
    class Idle(Trainer):
        def training_epoch(self):
            return {"loss": 0.0}

    with pytest.raises(RuntimeError, match="trained no batch"):
        make(tmp_path, kind=Idle).train()


def test_a_metrics_computer_gets_what_torch_would_give_it(tmp_path):
    computer = Accuracy()
    component = Classifier()
    trainer = make(tmp_path, component, metrics_computer=computer, nb_training_epochs=1)
    history = trainer.train()
    assert computer.computed == 1
    with torch.no_grad():
        expected = [component.model(batch["x"]) for batch in computer.inputs]
    for outputs, logits in zip(computer.outputs, expected, strict=True):
        assert type(outputs["logits"]) is torch.Tensor
        assert not outputs["logits"].requires_grad
        torch.testing.assert_close(outputs["logits"], logits)
    assert set(history[0]["eval"]) == {"loss", "accuracy"}
    assert set(history[0]["train"]) == {"loss"}


def test_outputs_of_padded_batches_are_cut(tmp_path):
    lengths = []

    class Lengths:
        def prepare_batch(self, model_output, input_batch):
            lengths.append((model_output["logits"].shape, input_batch["labels"].shape))
            return {}

        def compute(self, all_data):
            assert all_data == {}
            return {"score": 1.0}

    data = sentences()
    trainer = make(
        *(tmp_path, Tagger()),
        train=data,
        evaluated=data,
        metrics_computer=Lengths(),
        options=Options(length_ladder=(16, 32)),
        nb_training_epochs=1,
    )
    trainer.train()
    assert len(lengths) == 3
    assert all(logits == (*labels, 3) for logits, labels in lengths)
    graphs = trainer.prepare().converted.variants.graphs
    lengths_traced = {node.meta["val"].shape[1] for graph in graphs for node in _ids(graph)}
    assert lengths_traced <= {16, 32}


def _ids(graph):
    nodes = graph.module.graph.find_nodes(op="placeholder")
    columns = zip(nodes[len(nodes) - len(graph.columns) :], graph.columns, strict=True)
    return [node for node, name in columns if name == "input_ids"]


def test_padding_changes_no_number(tmp_path):
    data = sentences()
    ladders = ((8, 16, 24, 32), (40,))
    runs = [
        make(
            *(tmp_path / str(number), Tagger()),
            train=data,
            evaluated=data,
            options=Options(length_ladder=ladder),
        ).train()
        for number, ladder in enumerate(ladders)
    ]
    for first, second in zip(*runs, strict=True):
        for phase in ("train", "eval"):
            assert first[phase]["loss"] == pytest.approx(second[phase]["loss"], rel=1e-5)


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


def test_a_component_on_another_device_is_refused(tmp_path):
    component = Classifier()
    component.device = torch.device("cuda:0")
    with pytest.raises(ValueError, match="lies on cuda:0; expected the CPU"):
        make(tmp_path, component)


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


def test_an_item_that_raises_is_named(tmp_path):
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


def test_labels_out_of_range_are_named(tmp_path):
    data = [*DATA[:40], {**DATA[40], "y": 7}]
    with pytest.raises((ValueError, IndexError), match=r"column 'y' holds 7.*expected 0 to 2"):
        make(tmp_path, train=data).train()


def test_integers_that_do_not_fit_are_refused(tmp_path):
    class Wide(Classifier):
        def collate(self, examples):
            batch = super().collate(examples)
            batch["x2"] = torch.tensor([2**40] * len(examples))
            return batch

        def forward(self, batch, return_loss, eval_mode):
            outputs, loss = super().forward(batch, return_loss, eval_mode)
            return outputs, loss + 0 * batch["x2"].float().mean()

    with pytest.raises(ValueError, match="'x2' holds 1099511627776"):
        make(tmp_path, Wide()).train()


def test_texts_stay_on_the_host(tmp_path):
    class WithTexts(Classifier):
        def collate(self, examples):
            batch = super().collate(examples)
            batch["text"] = [f"{example['x'][0]}" for example in examples]
            return batch

    trainer = make(tmp_path, WithTexts())
    trainer.train()
    assert len(trainer.prepare().converted.variants.graphs) == 4  # full and last batch, each phase


def test_frozen_and_unused_parameters_stay(tmp_path):
    class Partly(Classifier):
        def __init__(self):
            super().__init__(weight_decay=0.5)
            self.model[0].bias.requires_grad_(False)
            self.model.unused = nn.Linear(2, 2)
            self.layers = [self.model[3]]

        def forward(self, batch, return_loss, eval_mode):
            hidden = self.model[1](self.model[0](batch["x"]))
            logits = self.layers[0](hidden)
            return BatchData(logits=logits), F.cross_entropy(logits, batch["y"])

    component = Partly()
    before = weights(component)
    make(tmp_path, component).train()
    after = weights(component)
    for name in ("0.bias", "unused.weight", "unused.bias"):
        assert torch.equal(before[name], after[name])
    assert not torch.equal(before["3.weight"], after["3.weight"])
    assert component.layers[0] is component.model[3]


def test_what_jax_computes_otherwise_is_refused(tmp_path, monkeypatch):
    from medjax_torch.lowerings.table import TABLE, Kind, Lowering

    relu = torch.ops.aten.relu.default
    monkeypatch.setitem(TABLE, relu, Lowering(lambda x: abs(x), Kind.PLAIN))
    trainer = make(tmp_path)
    with pytest.raises(VerificationError, match=r"differ.*Options\(verify=False\)"):
        trainer.train()
    make(tmp_path, options=Options(verify=False)).train()


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


def test_forward_may_decide_by_values_of_the_batch(tmp_path):
    class Deciding(Classifier):
        def forward(self, batch, return_loss, eval_mode):
            outputs, loss = super().forward(batch, return_loss, eval_mode)
            if batch["y"].sum() > 5:
                loss = loss * 2
            return outputs, loss

    component = Deciding()
    trainer = make(tmp_path, component, train=DATA[:40], nb_training_epochs=1, learning_rate=1e-9)
    history = trainer.train()
    batches = [batch for _, batch in epoch_batches(trainer.train_dataloader, 1)]
    losses = [component.forward(b, return_loss=True, eval_mode=False)[1].item() for b in batches]
    assert len({bool(b["y"].sum() > 5) for b in batches}) == 2
    assert history[0]["train"]["loss"] == pytest.approx(np.mean(losses), rel=1e-4)


def test_deciding_by_weights_is_refused_with_the_line(tmp_path):
    class Deciding(Classifier):
        def forward(self, batch, return_loss, eval_mode):
            outputs, loss = super().forward(batch, return_loss, eval_mode)
            if self.model[0].weight.sum() > 100:
                loss = loss * 2
            return outputs, loss

    message = r"test_trainer\.py.*depends on model.0.weight, which changes in training"
    with pytest.raises(TraceError, match=message):
        make(tmp_path, Deciding()).train()
