"""The formula of Kubernetes' HorizontalPodAutoscaler (autoscaling/v2) for a metric of pods, and what it must not do.

desired = ceil(replicas x mean ÷ target), within a tolerance of 10%. A smaller number counts only if all numbers of the
stabilization window were as small. A pod without a metric counts as idle when the number would grow, and as at its
target when it would shrink. Source: kubernetes.io/docs/tasks/run-application/horizontal-pod-autoscale.
"""

import itertools
import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

_TOLERANCE = 0.1


@dataclass
class Autoscaler:
    """A number of replicas that follows a metric."""

    target: float  # mean of the metric over the replicas
    most: int
    stabilization_s: float  # before the number shrinks
    replicas: int = 1
    _recommended: deque[tuple[float, int]] = field(default_factory=deque)

    def decide(self, metrics: Sequence[float], now: float) -> int:
        """Return the number of replicas from the metrics of those that have one."""
        desired = min(self.most, max(1, self._desired(metrics)))
        self._recommended.append((now, desired))
        while self._recommended[0][0] < now - self.stabilization_s:
            self._recommended.popleft()
        recent = max(number for _, number in self._recommended)
        self.replicas = desired if desired >= self.replicas else min(self.replicas, recent)
        return self.replicas

    def _desired(self, metrics: Sequence[float]) -> int:
        if not metrics:
            return self.replicas
        grows = sum(metrics) > self.target * len(metrics)
        missing = max(0, self.replicas - len(metrics))
        mean = (sum(metrics) + missing * (0.0 if grows else self.target)) / (len(metrics) + missing)
        ratio = mean / self.target
        if abs(ratio - 1) <= _TOLERANCE or (ratio > 1) != grows:
            return self.replicas
        return math.ceil(round(ratio * (len(metrics) + missing), 6))  # as Kubernetes, which counts in thousandths


def problems(replicas: Sequence[int], *, most: int) -> list[str]:
    """Return what is wrong with the replicas over time of one load step: up once, down once, and the right number."""
    changes = [after - before for before, after in itertools.pairwise(replicas) if after != before]
    reversals = sum(1 for before, after in itertools.pairwise(changes) if (before > 0) != (after > 0))
    found = []
    if max(replicas) != most:
        found.append(f"the most replicas were {max(replicas)}, not {most}")
    if replicas[-1] != replicas[0]:
        found.append(f"{replicas[-1]} replicas are left, not {replicas[0]}")
    if reversals > 1:
        found.append(f"the number changed its direction {reversals} times")
    return found
