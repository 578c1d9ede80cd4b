"""medkit's own Trainer and ours give equal losses and scores where forward reads values.

``pytest tests/interop/test_values_against_medkit.py -rP`` prints the largest differences.
"""

import pytest
from crf import CrfTagger, TagAccuracy
from test_host_evaluation import SHORT
from test_values_read import checked, logged, outputs, reading, scaled
from trained import Accuracy

import medjax_torch

pytest.importorskip("medkit")
from test_against_medkit import largest_difference, train

medkit_training = pytest.importorskip("medkit.training")

pytestmark = pytest.mark.filterwarnings("ignore:Converting a tensor with requires_grad")


class Rounded(Accuracy):
    """Scores the numbers that forward returns besides the logits."""

    def prepare_batch(self, model_output, input_batch):
        numbers = [float(value) for name, value in model_output.items() if name != "logits"]
        return {**super().prepare_batch(model_output, input_batch), "numbers": numbers}

    def compute(self, all_data):
        numbers = all_data["numbers"]
        return {**super().compute(all_data), "mean_number": sum(numbers) / len(numbers)}


@pytest.mark.parametrize("accumulation", [1, pytest.param(3, marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    "function",
    [checked, scaled, *(pytest.param(f, marks=pytest.mark.slow) for f in (logged, outputs))],
)
def test_values_that_are_read_leave_medkits_numbers(tmp_path, function, accumulation):
    fields = {"gradient_accumulation_steps": accumulation}
    settings = {}
    if function is outputs:
        fields["do_metrics_in_training"] = True
        settings["metrics_computer"] = Rounded()
    histories = [
        train(module, tmp_path / module.__name__, reading(function), settings, fields)[1]
        for module in (medjax_torch, medkit_training)
    ]
    difference = largest_difference(*histories)
    print(f"largest difference of a loss or score over 3 epochs: {difference:.1e}")
    # One of the numbers is rounded to two digits, and the last of them may differ.
    assert difference <= (1e-3 if function is outputs else 1e-5)


@pytest.mark.parametrize(
    "in_training",
    [False, pytest.param(True, marks=pytest.mark.slow)],
    ids=["in evaluation", "everywhere"],
)
def test_a_crf_tagger_has_medkits_losses_and_scores(tmp_path, in_training):
    histories = [
        train(
            module,
            tmp_path / module.__name__,
            CrfTagger(in_training),
            {"metrics_computer": TagAccuracy()},
            {"learning_rate": 5e-2},
            SHORT,
            SHORT,
        )[1]
        for module in (medjax_torch, medkit_training)
    ]
    difference = largest_difference(*histories)
    print(f"largest difference of a loss or score over 3 epochs: {difference:.1e}")
    assert difference <= 1e-5
