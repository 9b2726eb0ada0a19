"""The state of the server: starting, loaded, ready once all workers are, draining before a stop, or broken.

The lifespan and the worker change the state; endpoints and admission read it.
"""

from typing import Literal

from service.errors import NotReady

State = Literal["starting", "loaded", "ready", "broken", "draining"]


class Readiness:
    """Holds the state, and derives whether requests are accepted and whether the readiness probe succeeds."""

    def __init__(self, state: State = "starting") -> None:
        self._state: State = state
        self._activity: str | None = None

    def report_activity(self, activity: str | None) -> None:
        """Set the current long step of the start, for error messages; None: it has ended."""
        self._activity = activity

    def note_loaded(self) -> None:
        """Set the state to loaded: the models of this process are loaded."""
        self._state = "loaded"

    def become_ready(self) -> None:
        """Set the state to ready: all workers have loaded their models. No effect unless this process has."""
        if self._state == "loaded":
            self._state = "ready"

    def note_broken(self) -> None:
        """Set the state to broken: the GPU has failed, and this process is about to exit."""
        self._state = "broken"

    def start_draining(self) -> None:
        """Set the state to draining: a stop was requested."""
        self._state = "draining"

    @property
    def is_ready(self) -> bool:
        """Whether load balancers should send requests here."""
        return self._state == "ready"

    @property
    def is_draining(self) -> bool:
        """Whether a stop was requested: new requests are answered, but each response closes its connection."""
        return self._state == "draining"

    @property
    def is_accepting(self) -> bool:
        """Whether inference requests are accepted and connections stay open."""
        return self._state in ("loaded", "ready")

    def check_ready(self) -> None:
        """Raise NotReady unless load balancers should send requests here."""
        if self._state == "draining":
            raise NotReady("The server is about to stop; send requests elsewhere.", code="draining", retry_after_s=5)
        self.check_started()
        if self._state != "ready":
            raise NotReady("The server is still starting its processes; try again soon.", retry_after_s=1)

    def check_started(self) -> None:
        """Raise NotReady until the models are loaded, checked and warm, and once the GPU has failed."""
        if self._state == "starting":
            doing = f" ({self._activity})" if self._activity else ""
            raise NotReady(f"The server is still loading its models{doing}; try again soon.", retry_after_s=1)
        if self._state == "broken":
            raise NotReady("The server's GPU has failed; the process restarts, try again soon.", retry_after_s=5)
