"""reduce_on_plateau equals torch's ReduceLROnPlateau bit for bit, at every epoch."""

import json
import math
import warnings

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from medjax import reduce_on_plateau

metrics = st.lists(
    st.one_of(
        st.sampled_from([0.0, 1.0, -1.0, 0.5, math.nan, math.inf, -math.inf]),
        st.floats(-3, 3),
        st.floats(0.99, 1.01),
    ),
    max_size=40,
)
arguments = st.fixed_dictionaries(
    {
        "mode": st.sampled_from(["min", "max"]),
        "factor": st.sampled_from([0.1, 0.5, 0.9, 1 / 3]),
        "patience": st.integers(0, 3),
        "threshold": st.sampled_from([0.0, 1e-4, 0.1, 1.0]),
        "threshold_mode": st.sampled_from(["rel", "abs"]),
        "cooldown": st.integers(0, 3),
        "min_lr": st.sampled_from([0.0, 1e-3, 0.05, 0.2]),
        "eps": st.sampled_from([1e-8, 1e-3]),
    }
)


def rates_of_torch(learning_rate, sequence, options):
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=learning_rate)
    scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, **options)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for metric in sequence:
            scheduler.step(metric)
            yield optimizer.param_groups[0]["lr"], scheduler.num_bad_epochs


@settings(max_examples=300, deadline=None)
@given(metrics, arguments, st.sampled_from([0.1, 1e-5, 3e-4]))
@example([1.0] * 12, {"patience": 0, "cooldown": 2}, 0.1)
@example([math.nan] * 30, {"patience": 2, "mode": "max"}, 0.1)
def test_it_decides_as_torch_does(sequence, options, learning_rate):
    schedule = reduce_on_plateau(**options)
    state = schedule.init(learning_rate)
    assert state["learning_rate"] == learning_rate
    theirs = rates_of_torch(learning_rate, sequence, options)
    for epoch, (metric, (rate, bad)) in enumerate(zip(sequence, theirs, strict=True), start=1):
        state = json.loads(json.dumps(schedule.update(state, epoch, metric)))
        assert (state["learning_rate"], state["bad_epochs"]) == (rate, bad)


def test_the_defaults_are_torchs():
    sequence = [1.0] * 40
    state = reduce_on_plateau().init(0.1)
    rates = []
    for epoch, metric in enumerate(sequence, start=1):
        state = reduce_on_plateau().update(state, epoch, metric)
        rates.append(state["learning_rate"])
    assert rates == [rate for rate, _ in rates_of_torch(0.1, sequence, {})]
    assert len(set(rates)) == 4


def test_an_update_leaves_the_old_state_alone():
    schedule = reduce_on_plateau(patience=0)
    before = schedule.init(1.0)
    kept = dict(before)
    schedule.update(before, 1, 5.0)
    assert before == kept


def test_a_missing_metric_is_an_error():
    schedule = reduce_on_plateau()
    with pytest.raises(ValueError, match="metric is None"):
        schedule.update(schedule.init(1.0), 1, None)
