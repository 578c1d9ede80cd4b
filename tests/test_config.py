"""TrainerConfig and Options have medkit's fields and refuse bad values when they are created."""

import dataclasses
import inspect
import math
from pathlib import Path

import numpy as np
import pytest

from medjax import Options, TrainerConfig

MEDKIT_FIELDS = [
    "output_dir",
    "learning_rate",
    "nb_training_epochs",
    "dataloader_nb_workers",
    "batch_size",
    "seed",
    "gradient_accumulation_steps",
    "do_metrics_in_training",
    "metric_to_track_lr",
    "checkpoint_period",
    "checkpoint_metric",
    "minimize_checkpoint_metric",
]
MEDKIT_DEFAULTS = [1e-5, 3, 0, 1, None, 1, False, "loss", 1, "loss", True]

BAD_FIELDS = {
    "output_dir": ["", None, 3],
    "learning_rate": [-1.0, math.nan, math.inf, "0.1", True, None, 10**400],
    "nb_training_epochs": [0, -1, 1.0, True, "3", None],
    "dataloader_nb_workers": [-1, 0.0, False, None],
    "batch_size": [0, -4, 2.0, True, np.float32(2), None],
    "seed": [-1, 2**63, 2**64, 1.5, True, "seed"],
    "gradient_accumulation_steps": [0, -1, 1.0, True, None],
    "do_metrics_in_training": [0, 1, "yes", None],
    "metric_to_track_lr": ["", None, 1],
    "checkpoint_period": [-1, 1.0, True, None],
    "checkpoint_metric": ["", None, 1],
    "minimize_checkpoint_metric": [0, 1, "min", None],
}

BAD_OPTIONS = {
    "max_grad_norm": [0, -1.0, math.nan, math.inf, True, "1"],
    "weight_decay": [-0.1, math.nan, math.inf, None, False],
    "warmup_steps": [-1, 1.0, 1.5, -0.1, math.nan, True, None, "10"],
    "early_stopping_patience": [0, -1, 1.0, True],
    "early_stopping_threshold": [-0.1, math.nan, None],
    "max_steps": [0, 1.0, True],
    "precision": ["float16", "bf16", None, 32],
    "loss_arithmetic": ["sum", None, True],
    "on_non_finite": ["ignore", None],
    "max_skipped": [-1, 1.0, True, None],
    "length_ladder": [(), (0, 4), (4, 4), (8, 4), (4.0, 8), "abc", 16, None],
    "length_window": [-1, 1.0, True, None],
    "padding": [None, ["a"], {"a": "x"}, {1: 0}],
    "max_shapes": [0, 1.0, None],
    "verify": [0, 1, "cpu"],
    "verify_padding": [0, None, "cpu"],
    "deterministic": [0, 1, None],
    "cache_preprocessed": [0, 1, None],
    "prefetch": [0, 1.5, True, None],
    "steps_per_dispatch": [0, 1.5, True, None],
    "compilation_cache": ["", 3, True],
    "worker_timeout": [0, -1, math.nan, math.inf, None],
    "save_interval_steps": [0, 1.0, True],
    "keep_all_checkpoints": [0, None],
    "log_dir": ["", 3, True],
}


def cases(table):
    return [
        pytest.param(field, value, id=f"{field}-{number}")
        for field, values in table.items()
        for number, value in enumerate(values)
    ]


def refuses(record, field, value, build):
    with pytest.raises(ValueError, match=rf"^{record}\.{field} is ") as caught:
        build()
    message = str(caught.value)
    assert repr(value) in message
    assert message.split("; expected ")[1]


@pytest.mark.parametrize(("field", "value"), cases(BAD_FIELDS))
def test_a_bad_value_is_refused_by_name(field, value):
    refuses(
        "TrainerConfig",
        field,
        value,
        lambda: TrainerConfig(**({"output_dir": "runs"} | {field: value})),
    )


@pytest.mark.parametrize(("field", "value"), cases(BAD_OPTIONS))
def test_a_bad_option_is_refused_by_name(field, value):
    refuses("Options", field, value, lambda: Options(**{field: value}))


def test_every_field_is_tested_with_a_bad_value():
    assert set(BAD_FIELDS) == {field.name for field in dataclasses.fields(TrainerConfig)}
    assert set(BAD_OPTIONS) == {field.name for field in dataclasses.fields(Options)}


def test_the_fields_are_medkits_in_medkits_order():
    parameters = inspect.signature(TrainerConfig).parameters
    assert list(parameters) == MEDKIT_FIELDS
    assert [p.default for p in parameters.values()][1:] == MEDKIT_DEFAULTS


def test_the_fields_are_those_of_the_installed_medkit():
    medkit = pytest.importorskip("medkit.training.trainer_config")
    theirs, ours = medkit.TrainerConfig("runs"), TrainerConfig("runs")
    assert list(theirs.to_dict().items()) == list(ours.to_dict().items())


def test_positional_arguments_and_to_dict_keep_the_order():
    values = [0.5, 2, 1, 8, 3, 4, True, "f1", 0, "accuracy", False]
    config = TrainerConfig("runs", *values)
    assert list(config.to_dict().items()) == list(zip(MEDKIT_FIELDS[1:], values, strict=True))


def test_numpy_numbers_become_python_numbers():
    config = TrainerConfig(
        "runs", learning_rate=np.float32(0.5), batch_size=np.int64(8), seed=np.uint32(3)
    )
    assert (config.learning_rate, config.batch_size, config.seed) == (0.5, 8, 3)
    assert [type(v) for v in (config.learning_rate, config.batch_size, config.seed)] == [
        float,
        int,
        int,
    ]


@pytest.mark.parametrize("seed", [None, 0, 2**63 - 1])
def test_allowed_seeds(seed):
    assert TrainerConfig("runs", seed=seed).seed == seed


def test_a_learning_rate_may_be_zero_or_an_integer():
    assert TrainerConfig("runs", learning_rate=0).learning_rate == 0.0
    assert isinstance(TrainerConfig("runs", learning_rate=1).learning_rate, float)


def test_the_output_folder_may_be_a_path():
    assert TrainerConfig(Path("runs")).output_dir == Path("runs")


@pytest.mark.parametrize("record", [TrainerConfig("runs"), Options()])
def test_records_are_frozen(record):
    name = dataclasses.fields(record)[-1].name
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(record, name, None)


@pytest.mark.parametrize("warmup", [0, 100, np.int32(5), 0.0, 0.1, 0.999])
def test_warm_up_is_a_count_or_a_fraction(warmup):
    assert Options(warmup_steps=warmup).warmup_steps == warmup


def test_a_ladder_of_any_sequence_becomes_a_tuple():
    assert Options(length_ladder=[8, np.int64(16)]).length_ladder == (8, 16)
    assert all(type(n) is int for n in Options(length_ladder=np.array([8, 16])).length_ladder)
