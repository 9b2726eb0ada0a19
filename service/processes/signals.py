"""The signals that the supervisor decides on; its children ignore them."""

import asyncio
import signal
from collections.abc import Callable

TO_STOP = (signal.SIGTERM, signal.SIGINT)
DECIDED_ABOVE = (*TO_STOP, signal.SIGHUP)  # they may reach all processes of a terminal or container
HEARD = (*DECIDED_ABOVE, signal.SIGCHLD)


def watch_signals(*, stop: Callable[[], None], reload: Callable[[], None], reap: Callable[[], None]) -> None:
    """Call these on the running event loop when a signal comes."""
    loop = asyncio.get_running_loop()
    for number in TO_STOP:
        loop.add_signal_handler(number, stop)
    loop.add_signal_handler(signal.SIGHUP, reload)
    loop.add_signal_handler(signal.SIGCHLD, reap)


def ignore_signals() -> None:
    """Ignore what comes from now on: the loop would let a signal end the process, with another status."""
    for number in HEARD:
        asyncio.get_running_loop().remove_signal_handler(number)
        signal.signal(number, signal.SIG_IGN)
