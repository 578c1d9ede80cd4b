"""Ways to break a run at a chosen batch."""

from __future__ import annotations


class DiedError(Exception):
    """What kills a run in these tests."""


def die() -> None:
    raise DiedError("a fault")


class EvalSteps:
    """Counts the steps of evaluations, in a list that its state refers to."""

    def __init__(self) -> None:
        self.seen: list[int] = []

    def on_step_end(self, step_idx: int, phase: str) -> None:
        if phase == "eval":
            self.seen.append(step_idx)

    def state_dict(self) -> dict[str, list[int]]:
        return {"seen": self.seen}

    def load_state_dict(self, state: dict[str, list[int]]) -> None:
        self.seen = state["seen"]


class At:
    """Does something at the end of one batch; epochs from 1, batches from 0."""

    def __init__(self, epoch: int, batch: int, phase: str, action) -> None:
        self.when, self.action, self.epoch = (epoch, batch, phase), action, 0

    def on_epoch_begin(self, epoch: int) -> None:
        self.epoch = epoch

    def on_step_end(self, step_idx: int, phase: str) -> None:
        if (self.epoch, step_idx, phase) == self.when:
            self.action()
