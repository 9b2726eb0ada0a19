"""Whether one more image has a chance of being answered in time, and when to come back if it has none.

Decided by number and by age: how many wait, and how long the last of them will wait at the speed of the last batches.
A burst may fill the queue to its age limit. A queue that stays filled serves nobody: everyone waits as long and as many
are answered as with a short one, and once the flood is over it takes the longer to be as quick as before. So when it
has not been nearly empty for a while, only a part of the age is allowed until it is (the idea of CoDel, RFC 8289).
"""

import math
import random
from dataclasses import dataclass

from service.errors import Expired, Overloaded

_LONGEST_RETRY_AFTER_S = 30
_SPREAD_S = 2  # clients that were refused together shall not come back together
_STANDING = 0.4  # of the age limit: what a queue that stays filled may be long
_NEARLY_EMPTY = 0.05  # of the age limit
_QUICK_S = 0.005
_LONGEST_BATCH_S = 0.1  # everybody in a batch waits for all of it
_LONGEST_BATCH = 0.2  # of the age limit
_RECENT = 0.1  # weight of the newest batch in the running mean of seconds an image


@dataclass(frozen=True, slots=True)
class QueueLimits:
    """How much may wait, and for how long."""

    max_waiting: int  # images, in all processes together
    max_age_s: float
    never_refused: int = 0  # this many outstanding images of a process wait as long as it takes

    def __post_init__(self) -> None:
        if self.max_waiting < 1 or self.max_age_s <= 0:
            raise ValueError(f"max_waiting {self.max_waiting} and max_age_s {self.max_age_s} must be positive")


class LoadShedder:
    """Watches the speed of a process's engine threads and judges who may still come in."""

    def __init__(self, limits: QueueLimits) -> None:
        self._limits = limits
        self._seconds_per_image = self._seconds_per_batch = 0.0  # of one thread
        self._nearly_empty_at = -math.inf  # monotonic seconds

    def note_batch(self, seconds: float, images: int) -> None:
        """Take one more batch into account."""
        self._seconds_per_image += _RECENT * (seconds / images - self._seconds_per_image)
        self._seconds_per_batch += _RECENT * (seconds - self._seconds_per_batch)

    def is_quick(self) -> bool:
        """Whether the last images took so little time that the event loop could have spared it."""
        return self._seconds_per_image <= _QUICK_S

    def largest_batch(self) -> int:
        """Return how many images a thread may take at once, so that they do not wait long for each other."""
        longest_s = min(_LONGEST_BATCH_S, _LONGEST_BATCH * self._limits.max_age_s)
        return max(1, int(longest_s / max(self._seconds_per_image, 1e-6)))

    def is_full(self, waiting_everywhere: int) -> bool:
        """Whether as many wait as may wait."""
        return waiting_everywhere >= self._limits.max_waiting

    def expiry(self, now: float, outstanding: int) -> float:
        """Return until when an image that comes now may wait."""
        return math.inf if outstanding < self._limits.never_refused else now + self._limits.max_age_s

    def latest_start(self, expires_at: float) -> float:
        """Return when an image has to be taken at the latest to have its answer by then."""
        return expires_at - self._seconds_per_batch

    def check(
        self, now: float, *, waiting: int, outstanding: int, threads: int, is_idle: bool, seconds_left: float
    ) -> None:
        """Raise Overloaded or Expired for an image that would wait too long, or be answered after its client's limit.

        `waiting` and `outstanding` are this process's, which `is_idle` if one of its threads has nothing to do; a
        process that has nothing to do at all always tries.
        """
        if not self.has_capacity(now, waiting=waiting, outstanding=outstanding, threads=threads):
            raise self.overloaded(waiting, threads)
        wait_s = waiting * self._seconds_per_image / threads
        if outstanding and self._answered_in_s(wait_s, is_idle=is_idle) > seconds_left:
            raise Expired(
                "The answer would come later than the time limit that the request has set.",
                code="cannot_make_it",
                retry_after_s=self.retry_after_s(waiting, threads),
            )

    def has_capacity(self, now: float, *, waiting: int, outstanding: int, threads: int) -> bool:
        """Return whether one more image would wait no longer than allowed; the numbers are as in `check`."""
        wait_s = waiting * self._seconds_per_image / threads
        longest_s = self._longest_wait_s(now, wait_s)
        return wait_s <= longest_s or outstanding < max(1, self._limits.never_refused)

    def _answered_in_s(self, wait_s: float, *, is_idle: bool) -> float:
        """Return how long an answer takes at most: the batch that is being run, what waits before, its own batch."""
        running_s = 0.0 if is_idle else self._seconds_per_batch
        return running_s + max(wait_s + self._seconds_per_image, self._seconds_per_batch)

    def _longest_wait_s(self, now: float, wait_s: float) -> float:
        longest_s = self._limits.max_age_s
        if wait_s <= _NEARLY_EMPTY * longest_s:
            self._nearly_empty_at = now
        if now - self._nearly_empty_at > longest_s:
            return _STANDING * longest_s
        # The batch that is being run has to end first, and then its own, too, is to end within the age.
        return max(0.0, longest_s - 2 * self._seconds_per_batch)

    def overloaded(self, waiting: int, threads: int) -> Overloaded:
        """Return the refusal of an image that finds too much waiting."""
        return Overloaded(
            "Too many images are waiting already; try again a little later.",
            retry_after_s=self.retry_after_s(waiting, threads),
        )

    def retry_after_s(self, waiting: int, threads: int) -> int:
        """Return the seconds until the queue is empty, with a random spread: 1 to 30."""
        until_empty_s = math.ceil(waiting * self._seconds_per_image / threads)
        return min(max(1, until_empty_s) + random.randint(0, _SPREAD_S), _LONGEST_RETRY_AFTER_S)  # noqa: S311
