"""Starting, ready, draining: who is told what."""

from typing import Any

import pytest

from service.errors import NotReady
from service.http.readiness import Readiness


@pytest.mark.parametrize(
    ("state", "started", "ready"), [("starting", False, False), ("ready", True, True), ("draining", True, False)]
)
def test_readiness_tells_starting_ready_and_draining_apart(state: Any, started: bool, ready: bool) -> None:
    readiness = Readiness()
    readiness.state = state
    for check, passes in ((readiness.check_started, started), (readiness.check_ready, ready)):
        if passes:
            check()
        else:
            with pytest.raises(NotReady) as refusal:
                check()
            assert refusal.value.retry_after_s
