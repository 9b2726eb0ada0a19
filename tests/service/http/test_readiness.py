"""The states of the server, and which checks pass in each."""

from typing import Any

import pytest

from service.errors import NotReady
from service.http.readiness import Readiness


@pytest.mark.parametrize(
    ("state", "started", "ready"), [("starting", False, False), ("ready", True, True), ("draining", True, False)]
)
def test_readiness_distinguishes_starting_ready_and_draining(state: Any, started: bool, ready: bool) -> None:
    readiness = Readiness(state)
    for check, passes in ((readiness.check_started, started), (readiness.check_ready, ready)):
        if passes:
            check()
        else:
            with pytest.raises(NotReady) as refusal:
                check()
            assert refusal.value.retry_after_s


def test_a_process_becomes_ready_only_after_it_has_loaded_its_models() -> None:
    readiness = Readiness()
    readiness.become_ready()
    assert not readiness.is_ready
    readiness.note_loaded()
    assert not readiness.is_ready
    readiness.become_ready()
    assert readiness.is_ready


def test_draining_is_final() -> None:
    readiness = Readiness("ready")
    readiness.start_draining()
    readiness.become_ready()
    assert (readiness.is_ready, readiness.is_draining) == (False, True)
