"""A limit on the duration of a run, from its start to the end of its last evaluation.

The number of steps that fit is measured before the first step, and again and again during the run: the speed may
change, and evaluations and checkpoints take time, too. The learning rate follows the number of the moment.
"""

import time
from dataclasses import dataclass

_UPDATES_AHEAD = 20  # of the number of steps, in the time that is left
_SHORTEST_UPDATE_S = 1.0
_FORGETTING = 0.1  # weight of the newest measurement of the speed
_EVALUATION_SHARE = 1 / 3  # of the time of a training image, until an evaluation is measured


@dataclass(slots=True)
class TimeBudget:
    """What is left of a number of seconds, in steps. `began` is a time of `time.monotonic`."""

    limit_s: float
    began: float
    final_images: int  # that the last evaluations read
    step_s: float = 0.0  # of training, without evaluations and checkpoints
    image_s: float = 0.0  # of evaluation
    trained_s: float = 0.0
    other_s: float = 0.0  # evaluations and checkpoints
    updated_s: float = 0.0  # when the number of steps was last changed

    def spent_s(self) -> float:
        """Return the seconds since the beginning."""
        return time.monotonic() - self.began

    def note_steps(self, steps: int, seconds: float, batch_size: int) -> None:
        """Add a measurement of the training."""
        step_s = seconds / steps
        self.step_s = step_s if self.step_s == 0 else (1 - _FORGETTING) * self.step_s + _FORGETTING * step_s
        self.trained_s += seconds
        if self.image_s == 0:
            self.image_s = _EVALUATION_SHARE * self.step_s / batch_size

    def note_checkpoint(self, seconds: float) -> None:
        """Add the time of a checkpoint."""
        self.other_s += seconds

    def note_evaluation(self, seconds: float, images: int, batch_size: int) -> None:
        """Add a measurement of an evaluation. An image takes no longer than in training: of few, most is overhead."""
        self.other_s += seconds
        self.image_s = min(seconds / images, self.step_s / batch_size)

    def steps_left(self, spent_s: float) -> int:
        """Return how many steps fit into the rest of the time, before the last evaluations."""
        left_s = self.limit_s - spent_s - self.final_images * self.image_s
        return max(0, int(left_s / (self.step_s * (1 + self.other_s / max(self.trained_s, self.step_s)))))

    def is_due(self, spent_s: float) -> bool:
        """Whether the number of steps should be computed again."""
        wait_s = max(_SHORTEST_UPDATE_S, (self.limit_s - self.updated_s) / _UPDATES_AHEAD)
        if spent_s - self.updated_s < wait_s:
            return False
        self.updated_s = spent_s
        return True
