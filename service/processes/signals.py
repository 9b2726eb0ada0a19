"""The signals that the supervisor handles; its children ignore them."""

import asyncio
import signal
from collections.abc import Callable

STOP = (signal.SIGTERM, signal.SIGINT)
IGNORED_BY_CHILDREN = (*STOP, signal.SIGHUP)  # a terminal or container may send them to all processes
HANDLED = (*IGNORED_BY_CHILDREN, signal.SIGCHLD)


def watch_signals(*, stop: Callable[[], None], reload: Callable[[], None], reap: Callable[[], None]) -> None:
    """Call these on the running event loop for SIGTERM and SIGINT, SIGHUP, and SIGCHLD."""
    loop = asyncio.get_running_loop()
    for number in STOP:
        loop.add_signal_handler(number, stop)
    loop.add_signal_handler(signal.SIGHUP, reload)
    loop.add_signal_handler(signal.SIGCHLD, reap)


def ignore_signals() -> None:
    """Ignore all handled signals: once the loop has ended, a signal would change the exit status."""
    for number in HANDLED:
        asyncio.get_running_loop().remove_signal_handler(number)
        signal.signal(number, signal.SIG_IGN)
