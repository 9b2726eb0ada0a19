"""Where the server is in its life: starting, loaded, ready once all processes are, draining before a stop.

Written by its owner, read by the rest.
"""

from typing import Literal

from service.errors import NotReady


class Readiness:
    """Whether work is accepted, and whether load balancers should send more."""

    def __init__(self) -> None:
        self.state: Literal["starting", "loaded", "ready", "broken", "draining"] = "starting"
        self.activity: str | None = None  # what takes long while it starts, for those who wait

    @property
    def is_draining(self) -> bool:
        """True once the server was told to stop: what arrives is still answered, but ends its connection."""
        return self.state == "draining"

    @property
    def is_accepting(self) -> bool:
        """True while inference requests are accepted and connections are kept."""
        return self.state in ("loaded", "ready")

    def check_ready(self) -> None:
        """Raise NotReady unless load balancers should send requests here."""
        if self.state == "draining":
            raise NotReady("The server is about to stop; send requests elsewhere.", code="draining", retry_after_s=5)
        self.check_started()
        if self.state != "ready":
            raise NotReady("The server is still starting its processes; try again soon.", retry_after_s=1)

    def check_started(self) -> None:
        """Raise NotReady until the models are loaded, checked and warm, and when nothing can run them any more."""
        if self.state == "starting":
            doing = f" ({self.activity})" if self.activity else ""
            raise NotReady(f"The server is still loading its models{doing}; try again soon.", retry_after_s=1)
        if self.state == "broken":
            raise NotReady("The server's GPU has failed and it will start again; try again soon.", retry_after_s=5)
