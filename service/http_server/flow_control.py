"""uvicorn's flow control with a second, independent pause for reading."""

import asyncio

from uvicorn.protocols.http.flow_control import FlowControl


class ReadingFlow(FlowControl):
    """Reads from the socket only while neither uvicorn nor `hold` pauses it."""

    def __init__(self, transport: asyncio.Transport) -> None:
        super().__init__(transport)
        self.is_held = False
        self._is_paused = False  # by uvicorn

    def pause_reading(self) -> None:
        """Pause reading on behalf of uvicorn."""
        self._is_paused = True
        super().pause_reading()

    def resume_reading(self) -> None:
        """End uvicorn's pause; reading resumes unless `hold` is in effect."""
        self._is_paused = False
        if not self.is_held:
            super().resume_reading()

    def hold(self) -> None:
        """Pause reading until `release`, independent of uvicorn's pause."""
        self.is_held = True
        super().pause_reading()

    def release(self) -> None:
        """End the pause of `hold`; reading resumes unless uvicorn has paused it."""
        self.is_held = False
        if not self._is_paused:
            super().resume_reading()
