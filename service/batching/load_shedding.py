"""Load shedding: whether to accept one more image, and when a refused client should retry.

The decision uses the number of waiting images and their expected waiting time at the speed of the last batches. A burst
may fill the queue up to the age limit. A standing queue has no benefit: the throughput is that of a short queue, each
image waits longer, and latency recovers more slowly after the overload. When the queue has not been nearly empty for a
while, only a part of the age limit is therefore allowed until it is (the idea of CoDel, RFC 8289).
"""

import math
import random
from dataclasses import dataclass

from service.errors import Expired, Overloaded, queue_full

_LONGEST_RETRY_AFTER_S = 30
_SPREAD_S = 2  # clients that were refused at the same time should not retry at the same time
_STANDING = 0.4  # of the age limit: the longest wait in a standing queue
_NEARLY_EMPTY = 0.05  # of the age limit
_FAST_IMAGE_S = 0.005
_LONGEST_BATCH_S = 0.1  # every image of a batch waits for the whole batch
_LONGEST_BATCH = 0.2  # of the age limit
_RECENT = 0.1  # weight of the newest batch in the running mean of seconds an image


@dataclass(frozen=True, slots=True)
class QueueLimits:
    """Limits on the number of waiting images and on their waiting time."""

    max_waiting: int  # images, in all processes together
    max_age_s: float
    never_refused: int = 0  # this many outstanding images of a process have no age limit

    def __post_init__(self) -> None:
        if self.max_waiting < 1 or self.max_age_s <= 0:
            raise ValueError(f"max_waiting {self.max_waiting} and max_age_s {self.max_age_s} must be positive")


class LoadShedder:
    """Measures the speed of a process's engine threads, and decides which images are accepted."""

    def __init__(self, limits: QueueLimits) -> None:
        self._limits = limits
        self._seconds_per_image = self._seconds_per_batch = 0.0  # of one thread
        self._nearly_empty_at = -math.inf  # monotonic seconds

    def note_batch(self, seconds: float, images: int) -> None:
        """Update the running means with one batch."""
        self._seconds_per_image += _RECENT * (seconds / images - self._seconds_per_image)
        self._seconds_per_batch += _RECENT * (seconds - self._seconds_per_batch)

    def is_fast(self) -> bool:
        """Return whether an image takes at most 5 ms, which is short enough for the event loop."""
        return self._seconds_per_image <= _FAST_IMAGE_S

    def largest_batch(self) -> int:
        """Return the largest number of images in a batch that keeps the batch short: 0.1 s, or 20% of the age limit."""
        longest_s = min(_LONGEST_BATCH_S, _LONGEST_BATCH * self._limits.max_age_s)
        return max(1, int(longest_s / max(self._seconds_per_image, 1e-6)))

    def is_full(self, waiting_everywhere: int) -> bool:
        """Return whether the number of waiting images has reached its limit."""
        return waiting_everywhere >= self._limits.max_waiting

    def expiry(self, now: float, outstanding: int) -> float:
        """Return until when an image that arrives now may wait, in monotonic seconds."""
        return math.inf if outstanding < self._limits.never_refused else now + self._limits.max_age_s

    def latest_start(self, expires_at: float) -> float:
        """Return the latest start of an image's batch that meets the deadline `expires_at`, in monotonic seconds."""
        return expires_at - self._seconds_per_batch

    def check(
        self, now: float, *, waiting: int, outstanding: int, threads: int, is_idle: bool, seconds_left: float
    ) -> None:
        """Raise Overloaded for an image that would wait too long, and Expired for one that would miss its deadline.

        `waiting` and `outstanding` count the images of this process. `is_idle`: at least one of its threads is idle.
        `seconds_left` is the time until the client's deadline. A process without outstanding images accepts any image.
        """
        if not self.has_capacity(now, waiting=waiting, outstanding=outstanding, threads=threads):
            raise self.overloaded(waiting, threads)
        wait_s = waiting * self._seconds_per_image / threads
        if outstanding and self._answered_in_s(wait_s, is_idle=is_idle) > seconds_left:
            raise Expired(
                "The result would arrive after the deadline that the request has set.",
                code="cannot_make_it",
                retry_after_s=self.retry_after_s(waiting, threads),
            )

    def has_capacity(self, now: float, *, waiting: int, outstanding: int, threads: int) -> bool:
        """Return whether one more image would wait no longer than allowed; the arguments are as in `check`."""
        wait_s = waiting * self._seconds_per_image / threads
        longest_s = self._longest_wait_s(now, wait_s)
        return wait_s <= longest_s or outstanding < max(1, self._limits.never_refused)

    def _answered_in_s(self, wait_s: float, *, is_idle: bool) -> float:
        """Return the longest time to a result: the running batch, the images ahead in the queue, its own batch."""
        running_s = 0.0 if is_idle else self._seconds_per_batch
        return running_s + max(wait_s + self._seconds_per_image, self._seconds_per_batch)

    def _longest_wait_s(self, now: float, wait_s: float) -> float:
        longest_s = self._limits.max_age_s
        if wait_s <= _NEARLY_EMPTY * longest_s:
            self._nearly_empty_at = now
        if now - self._nearly_empty_at > longest_s:
            return _STANDING * longest_s
        # Both the running batch and the image's own batch have to end within the age limit.
        return max(0.0, longest_s - 2 * self._seconds_per_batch)

    def overloaded(self, waiting: int, threads: int) -> Overloaded:
        """Return the refusal of an image for which the queue has no capacity."""
        return queue_full(self.retry_after_s(waiting, threads))

    def retry_after_s(self, waiting: int, threads: int) -> int:
        """Return the seconds until the queue is empty, with a random spread, from 1 to 30."""
        until_empty_s = math.ceil(waiting * self._seconds_per_image / threads)
        return min(max(1, until_empty_s) + random.randint(0, _SPREAD_S), _LONGEST_RETRY_AFTER_S)  # noqa: S311
