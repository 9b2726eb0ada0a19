"""Accept headers, as browsers, libraries and people write them."""

import pytest

from service.errors import NotAcceptable
from service.http.accept import choose

OFFERED = ("application/json", "image/png")


@pytest.mark.parametrize(
    ("accept", "chosen"),
    [
        (None, 0),
        (b"", 0),
        (b"*/*", 0),
        (b"image/png", 1),
        (b"IMAGE/PNG; q=0.5", 1),
        (b"image/*", 1),
        (b"image/avif,image/webp,image/png,*/*;q=0.8", 1),
        (b"text/html, application/json;q=0.2, image/png;q=0.1", 0),
        (b"*/*;q=0.5, application/json;q=0.1", 1),
        (b"application/json;q=0, */*", 1),
    ],
)
def test_the_best_liked_of_what_there_is_is_chosen(accept: bytes | None, chosen: int) -> None:
    assert choose(accept, OFFERED) == OFFERED[chosen]


@pytest.mark.parametrize(
    "accept", [b"text/html", b"image/png;q=0", b"application/json;q=x", b";;,,", b"\xff", b"*/*;q=nan"]
)
def test_what_allows_nothing_of_it_is_refused(accept: bytes) -> None:
    with pytest.raises(NotAcceptable, match="application/json, image/png"):
        choose(accept, OFFERED)
