"""A callback that stops a run, as a kill would, for tests that resume it."""

from medjax.callbacks import TrainerCallback


class StoppedError(Exception):
    pass


class StopAt(TrainerCallback):
    """Stops after some steps of a phase."""

    def __init__(self, phase, count):
        self.phase, self.left = phase, count

    def on_step_end(self, step_idx, nb_batches, phase):
        if phase == self.phase:
            self.left -= 1
            if self.left == 0:
                raise StoppedError
