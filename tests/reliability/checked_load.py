"""Clients that send images with known labels, at a low rate on kept connections, and check every answer."""

import http.client
import json
import time
from collections import Counter
from dataclasses import dataclass
from typing import Any

from tests.service.conftest import image
from tests.support.servers.client_threads import ClientThreads
from tests.support.servers.served import Served

COLOURS = {"red": (255, 0, 0), "green": (0, 255, 0), "blue": (0, 0, 255), "white": (255, 255, 255)}
_TOLERANCE = 1e-4  # of a probability: a batch of another size may round otherwise


@dataclass(frozen=True, slots=True)
class Known:
    """An image and its right answer."""

    content: bytes
    label: str
    probability: float

    def is_right(self, document: Any) -> bool:
        """Return whether an answer has the right best label, with the right probability."""
        best = document["predictions"][0]
        return bool(best["label"] == self.label and abs(best["probability"] - self.probability) <= _TOLERANCE)


def known_answers(served: Served) -> list[Known]:
    """Return images with the answers that the server gives before a fault."""
    found = []
    for colour in COLOURS.values():
        content = image(colour)
        status, document = served.ask("POST", "/classify", content)
        assert status == 200, document
        best = document["predictions"][0]
        found.append(Known(content, best["label"], best["probability"]))
    return found


class CheckedLoad(ClientThreads):
    """Sends requests until the block ends."""

    def __init__(self, served: Served, known: list[Known], *, clients: int = 4, pause_s: float = 0.02) -> None:
        self._served, self._known, self._pause_s = served, known, pause_s
        super().__init__(clients, self._run)
        self.clients = clients
        self.outcomes: Counter[str] = Counter()  # right, wrong, or what came instead of an answer

    @property
    def failures(self) -> dict[str, int]:
        """Return how many requests have no answer, by what came instead."""
        return {kind: count for kind, count in self.outcomes.items() if kind not in ("right", "wrong")}

    def wait_for(self, answers: int) -> None:
        """Wait until so many more right answers have arrived; at most a minute."""
        target, deadline = self.outcomes["right"] + answers, time.monotonic() + 60
        while self.outcomes["right"] < target and time.monotonic() < deadline:
            time.sleep(0.01)

    def _run(self, first: int) -> None:
        connection, number = self._served.connect(), first
        while not self._ends.wait(self._pause_s):
            outcome = self._outcome(connection, self._known[number % len(self._known)])
            number += 1
            with self._lock:
                self.outcomes[outcome] += 1
        connection.close()

    def _outcome(self, connection: http.client.HTTPConnection, known: Known) -> str:
        try:
            connection.request("POST", "/classify", known.content)
            response = connection.getresponse()
            document = json.load(response)
        except (OSError, http.client.HTTPException) as error:
            connection.close()
            return type(error).__name__
        if response.status != 200:
            return f"{response.status} {document.get('code')}"
        return "right" if known.is_right(document) else "wrong"
