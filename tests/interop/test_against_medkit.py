"""medkit's own Trainer compared with ours, with the same components, data, seed and order.

``pytest tests/interop/test_against_medkit.py -rP`` prints the largest difference of each case.
"""

import warnings

import pytest
import torch
from medkit_cases import documents, make_matcher
from trained import DATA, Accuracy, Classifier, weights

import medjax_torch

pytest.importorskip("medkit")
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import medkit.training

SGD = {"optimizer": torch.optim.SGD, "momentum": 0.9, "nesterov": True}


def recorder(base, seen):
    """Return a callback that records the events of both trainers, with their arguments."""

    class Recorder(base):
        def on_train_begin(self, config):
            seen.append(("on_train_begin", config.to_dict()))

        def on_train_end(self):
            seen.append(("on_train_end",))

        def on_epoch_begin(self, epoch):
            seen.append(("on_epoch_begin", epoch))

        def on_epoch_end(self, metrics, epoch, epoch_duration):
            names = {phase: sorted(scores) for phase, scores in metrics.items()}
            seen.append(("on_epoch_end", epoch, names))

        def on_step_begin(self, step_idx, nb_batches, phase):
            seen.append(("on_step_begin", step_idx, nb_batches, phase))

        def on_step_end(self, step_idx, nb_batches, phase):
            seen.append(("on_step_end", step_idx, nb_batches, phase))

        def on_save(self, checkpoint_dir):
            seen.append(("on_save", checkpoint_dir.rpartition("_")[0][-14:]))

    return Recorder()


def train(module, folder, component, arguments, fields, train_data=DATA, eval_data=DATA[:20]):
    seen = []
    config = module.TrainerConfig(
        output_dir=str(folder),
        **{"learning_rate": 1e-2, "nb_training_epochs": 3, "batch_size": 8, "seed": 3, **fields},
    )
    if module is medjax_torch:
        arguments = {**arguments, "options": medjax_torch.Options(order="medkit")}
    trainer = module.Trainer(
        component,
        config,
        train_data,
        eval_data,
        callback=recorder(module.TrainerCallback, seen),
        **arguments,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # medkit's utcnow
        history = trainer.train()
    return trainer, history, seen


def largest_difference(actual, expected):
    """Return the largest difference of two histories, after comparing their keys."""
    assert len(actual) == len(expected)
    largest = 0.0
    for row, other in zip(actual, expected, strict=True):
        assert {phase: list(row[phase]) for phase in row} == {p: list(other[p]) for p in other}
        for phase, scores in other.items():
            largest = max(largest, *(abs(row[phase][n] - v) for n, v in scores.items()))
    return largest


@pytest.mark.parametrize("accumulation", [1, 3])
@pytest.mark.parametrize(
    ("component", "arguments", "fields"),
    [
        ({}, {}, {}),
        (SGD, {}, {}),
        ({}, {"metrics_computer": Accuracy()}, {}),
        ({}, {"metrics_computer": Accuracy()}, {"do_metrics_in_training": True}),
        (SGD, {"lr_scheduler_builder": lambda o: torch.optim.lr_scheduler.StepLR(o, 1, 0.5)}, {}),
        (
            {},
            {
                "lr_scheduler_builder": lambda o: torch.optim.lr_scheduler.ReduceLROnPlateau(
                    o, "max", patience=0, factor=0.5
                ),
                "metrics_computer": Accuracy(),
            },
            {"metric_to_track_lr": "accuracy", "checkpoint_period": 2},
        ),
    ],
    ids=["plain", "momentum", "metrics", "metrics in training", "step scheduler", "plateau"],
)
def test_a_run_equals_medkits(tmp_path, component, arguments, fields, accumulation):
    fields = {**fields, "gradient_accumulation_steps": accumulation}
    ours, theirs = Classifier(**component), Classifier(**component)
    mine, history, events = train(medjax_torch, tmp_path / "ours", ours, arguments, fields)
    other, expected, their_events = train(
        medkit.training, tmp_path / "medkit", theirs, arguments, fields
    )
    difference = largest_difference(history, expected)
    print(f"largest difference of a loss or score over 3 epochs: {difference:.1e}")
    assert difference <= 1e-5
    assert events == their_events
    for name, value in weights(theirs).items():
        torch.testing.assert_close(weights(ours)[name], value, rtol=1e-4, atol=1e-6)
    check_checkpoints(mine, other, tmp_path)


def test_medkits_entity_matcher_is_trained_as_medkit_does(tmp_path):
    metrics = pytest.importorskip("medkit.text.metrics.ner")
    pytest.importorskip("seqeval")
    make_matcher(tmp_path)
    histories = []
    for module in (medjax_torch, medkit.training):
        component = type(make_matcher(tmp_path / "other"))(
            tmp_path, ["problem"], "iob2", tokenizer_max_length=40
        )
        computer = metrics.SeqEvalMetricsComputer(component.id_to_label, tagging_scheme="iob2")
        data = list(documents()) * 5
        _, history, _ = train(
            module,
            tmp_path / module.__name__,
            component,
            {"metrics_computer": computer},
            {"batch_size": 4},
            data,
            data,
        )
        histories.append(history)
    difference = largest_difference(*histories)
    print(f"largest difference of a loss or score over 3 epochs: {difference:.1e}")
    assert difference <= 1e-5


def check_checkpoints(mine, other, folder):
    """Assert that the last checkpoints are the same, and that torch can read ours."""
    ours, theirs = (sorted((folder / name).iterdir())[-1] for name in ("ours", "medkit"))
    assert ours.name[:15] == theirs.name[:15]
    files = {path.name for path in theirs.iterdir()}
    added = {"manifest.json", "training_state", "training_state.json"}
    assert {path.name for path in ours.iterdir()} == files | added
    config = "trainer_config.yml"
    assert (ours / config).read_text("utf-8") == (theirs / config).read_text("utf-8")
    states = [
        torch.load(path / "optimizer.pt", weights_only=True)["state"] for path in (ours, theirs)
    ]
    torch.testing.assert_close(*states, rtol=1e-4, atol=1e-6)
    mine.optimizer.load_state_dict(torch.load(theirs / "optimizer.pt", weights_only=True))
    other.optimizer.load_state_dict(torch.load(ours / "optimizer.pt", weights_only=True))
    assert mine.optimizer.param_groups[0]["lr"] == other.optimizer.param_groups[0]["lr"]


def test_training_starts_from_medkits_checkpoint(tmp_path):
    train(medkit.training, tmp_path / "first", Classifier(), {}, {"nb_training_epochs": 1})
    (checkpoint,) = (tmp_path / "first").iterdir()
    components = []
    for module in (medjax_torch, medkit.training):
        component = Classifier()
        config = module.TrainerConfig(
            str(tmp_path / module.__name__), 1e-2, 1, batch_size=8, seed=3
        )
        # medkit's own base class lacks the argument that its trainer passes for the duration.
        callback = recorder(module.TrainerCallback, [])
        trainer = module.Trainer(component, config, DATA, DATA, callback=callback)
        if module is medjax_torch:
            trainer.train(resume=checkpoint)
        else:
            component.load(checkpoint)
            state = torch.load(checkpoint / "optimizer.pt", weights_only=True)
            trainer.optimizer.load_state_dict(state)
            trainer.train()
        steps = trainer.optimizer.state_dict()["state"].values()
        assert {int(slots["step"]) for slots in steps} == {12}
        components.append(component)
    ours, theirs = map(weights, components)
    # The order of the data differs, so the weights agree only roughly.
    torch.testing.assert_close(ours["0.weight"], theirs["0.weight"], rtol=0.2, atol=0.02)
