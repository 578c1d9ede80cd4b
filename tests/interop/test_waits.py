"""What a drop-in run says it waits for: tracing, the comparison with torch, compiling."""

from trained import make

from medjax_torch import TrainerCallback


class Waits(TrainerCallback):
    def __init__(self):
        self.reasons = []

    def on_wait(self, reason):
        self.reasons.append(reason)

    def on_train_begin(self):
        self.reasons.append("on_train_begin")


def test_a_run_says_what_it_waits_for(tmp_path):
    waits = Waits()
    make(tmp_path, callback=waits, nb_training_epochs=1).train()
    begin = waits.reasons.index("on_train_begin")
    prepared, trained = waits.reasons[:begin], waits.reasons[begin + 1 :]
    assert prepared[0] == "preparing model and data"
    assert prepared[-1] is None
    first = ["tracing 8 x 6", "preparing model and data", "comparing with torch"]
    assert [reason for reason in prepared if reason in first][1:4] == first
    assert "compiling 8 x 6" in trained
    assert "tracing 8 x 6" in trained  # for the evaluation
    assert trained[-1] is None
