"""Time limits of a client's connection."""

import math
import random
from dataclasses import dataclass

_JITTER = 0.1  # so that clients that connected together do not reconnect together


@dataclass(frozen=True, slots=True)
class ClientTimeouts:
    """Limits on the time that a client takes for each part of an exchange."""

    head_s: float = 5.0  # from connecting, or from the first byte of a later request, to the end of its headers
    body_s: float = 30.0  # for the whole body
    body_start_s: float = 5.0  # grace period before the minimum rate of the body applies
    least_bytes_per_s: int = 16 * 1024
    reading_s: float = 30.0  # for the client to read the response, once the send buffers are full
    # A later response closes the connection, so that the client connects again, maybe to another server.
    connection_age_s: float = math.inf

    def last_response_from(self, now: float) -> float:
        """Return the time from which on a response closes a connection that begins now: its age, within 10%."""
        return now + self.connection_age_s * random.uniform(1 - _JITTER, 1 + _JITTER)  # noqa: S311  # no secret
