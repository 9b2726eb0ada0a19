"""The last lines of a start are grammatical and can be followed as they stand."""

import pytest

from service.inference.layout import WorkerLayout
from service.supervisor.startup_message import startup_message

TWO = WorkerLayout(2, 1)


def lines(layout: WorkerLayout = TWO, address: str = "http://127.0.0.1:9000", *, needs_key: bool = False) -> list[str]:
    return startup_message(1234, layout, address, "http://127.0.0.1:9001", needs_key=needs_key)


@pytest.mark.parametrize(
    ("layout", "words"),
    [
        (WorkerLayout(1, 1), "1 process, 1 engine thread in each"),
        (WorkerLayout(2, 1), "2 processes, 1 engine thread in each"),
        (WorkerLayout(1, 8), "1 process, 8 engine threads in each"),
    ],
)
def test_what_runs_is_counted_in_english_and_who_hears_sighup_is_named(layout: WorkerLayout, words: str) -> None:
    assert lines(layout)[0] == f"supervisor 1234 runs {words}; kill -HUP 1234 reloads the models"


def test_the_last_line_says_how_to_use_it() -> None:
    assert lines()[1:] == [
        "listening on http://127.0.0.1:9000, metrics on http://127.0.0.1:9001/metrics",
        "open http://127.0.0.1:9000 in a browser, or: curl -F file=@photo.jpg http://127.0.0.1:9000/classify",
    ]


@pytest.mark.parametrize("address", ["http://0.0.0.0:8000", "http://[::]:8000"])
def test_every_address_is_no_address_to_open(address: str) -> None:
    assert lines(address=address)[1].startswith(f"listening on {address}, ")
    assert "open http://localhost:8000 in a browser" in lines(address=address)[2]
    assert lines(address=address)[2].endswith(" http://localhost:8000/classify")


def test_an_address_of_the_network_is_left_as_it_is() -> None:
    assert "open http://[fe80::1]:8000 " in lines(address="http://[fe80::1]:8000")[2]


def test_with_keys_the_command_sends_one() -> None:
    assert ' curl -H "X-Api-Key: $KEY" -F file=@photo.jpg ' in lines(needs_key=True)[2]
