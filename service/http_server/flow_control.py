"""uvicorn's flow control, with a reason of our own not to read from a socket."""

import asyncio

from uvicorn.protocols.http.flow_control import FlowControl


class ReadingFlow(FlowControl):
    """Reads only while neither uvicorn nor `hold` says otherwise."""

    def __init__(self, transport: asyncio.Transport) -> None:
        super().__init__(transport)
        self.is_held = False
        self._is_paused = False  # by uvicorn

    def pause_reading(self) -> None:
        """Read no more for now."""
        self._is_paused = True
        super().pause_reading()

    def resume_reading(self) -> None:
        """Read again, unless held."""
        self._is_paused = False
        if not self.is_held:
            super().resume_reading()

    def hold(self) -> None:
        """Read no more, whatever uvicorn says, until `release`."""
        self.is_held = True
        super().pause_reading()

    def release(self) -> None:
        """Read again, unless uvicorn has paused."""
        self.is_held = False
        if not self._is_paused:
            super().resume_reading()
