"""Scheduling priority of threads."""

import contextlib
import os
import sys
import threading

_ENGINE_NICENESS = 5  # a third of the event loop's weight where both want the same core


def yield_to_event_loop() -> None:
    """Lower the priority of the calling thread, so that the event loop of its process gets a core before it.

    Only Linux has a niceness for each thread. Processes in other control groups are not affected.
    """
    if sys.platform == "linux":
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _ENGINE_NICENESS)
