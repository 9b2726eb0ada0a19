"""Niceness of threads."""

import os
import sys
import threading

import pytest

from service.system.priority import yield_to_event_loop


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has a niceness for each thread")
def test_only_the_calling_thread_gets_a_lower_priority() -> None:
    before = os.getpriority(os.PRIO_PROCESS, threading.get_native_id())
    found: list[int] = []

    def work() -> None:
        yield_to_event_loop()
        found.append(os.getpriority(os.PRIO_PROCESS, threading.get_native_id()))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == [5]
    assert os.getpriority(os.PRIO_PROCESS, threading.get_native_id()) == before
