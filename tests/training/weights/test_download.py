"""A download ends with the right file under its name, or with none, whatever the server and the connection do."""

import hashlib
import random
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.support.servers.file_server import FileServer, serving
from training.weights import download as module
from training.weights.download import DownloadError, download

CONTENT = random.Random(5).randbytes(3_000_000)  # several chunks
DIGEST = hashlib.sha256(CONTENT).hexdigest()


class Fetching:
    """One place to download to, and the lines that were said."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.said: list[str] = []

    def fetch(self, server: FileServer, digest: str = DIGEST[:8], largest: int = 10_000_000) -> None:
        download(f"{server.url}/weights.pth", self.path, digest=digest, largest=largest, log=self.said.append)

    def refused(self, server: FileServer, **options: object) -> str:
        with pytest.raises(DownloadError) as refusal:
            self.fetch(server, **options)  # type: ignore[arg-type]
        message = str(refusal.value)
        assert "\n" not in message
        assert not self.path.exists()
        return message

    def leftovers(self) -> list[str]:
        return sorted(path.name for path in self.path.parent.iterdir() if path != self.path)


@pytest.fixture
def place(tmp_path: Path) -> Fetching:
    return Fetching(tmp_path / "new" / "weights.pth")


def test_a_file_comes_whole_and_is_fetched_once(place: Fetching) -> None:
    with serving(CONTENT) as server:
        place.fetch(server)
        place.fetch(server, digest=DIGEST)
        assert len(server.requests) == 1
    assert place.path.read_bytes() == CONTENT
    assert place.leftovers() == []
    assert place.said == [f"fetching {server.url}/weights.pth (3.0 MB)"]


def test_a_cut_is_gone_over_from_where_it_was(place: Fetching) -> None:
    with serving(CONTENT) as server:
        server.cut_after = [1_000_000, 500_000]
        place.fetch(server)
    assert place.path.read_bytes() == CONTENT
    assert [request.get("range") for request in server.requests] == [None, "bytes=1000000-", "bytes=1500000-"]
    assert {request.get("if-range") for request in server.requests[1:]} == {'"one"'}
    assert "cut off after 1,000,000 bytes; continuing from there" in place.said


def test_what_came_before_a_failure_is_kept_for_the_next_run(place: Fetching) -> None:
    with serving(CONTENT) as server:
        server.cut_after = [1_000_000, 0]
        assert "cut the connection after 1,000,000 bytes, which are kept" in place.refused(server)
        place.fetch(server)
    assert server.requests[-1]["range"] == "bytes=1000000-"
    assert place.path.read_bytes() == CONTENT
    assert place.leftovers() == []


def test_a_server_without_ranges_sends_the_whole_file_again(place: Fetching) -> None:
    with serving(CONTENT) as server:
        server.knows_ranges, server.cut_after = False, [1_000_000]
        place.fetch(server)
    assert place.path.read_bytes() == CONTENT


@pytest.mark.parametrize("etag", ['"two"', None, 'W/"weak"'])
def test_a_file_that_changed_meanwhile_is_fetched_whole(place: Fetching, etag: str | None) -> None:
    with serving(bytes(len(CONTENT))) as server:
        server.etag = '"one"' if etag == '"two"' else etag
        server.cut_after = [1_000_000, 0]
        place.refused(server)
        server.content, server.etag = CONTENT, etag
        place.fetch(server)
    assert place.path.read_bytes() == CONTENT


def test_a_partial_file_that_is_too_long_is_thrown_away(place: Fetching) -> None:
    place.path.parent.mkdir()
    place.path.with_name(".weights.pth.partial").write_bytes(bytes(4_000_000))
    with serving(CONTENT) as server:
        place.fetch(server)
    assert place.path.read_bytes() == CONTENT


def test_a_file_with_another_digest_is_refused_and_removed(place: Fetching) -> None:
    with serving(CONTENT[:-1] + b"x") as server:
        message = place.refused(server)
    found = hashlib.sha256(server.content).hexdigest()
    assert message == f"what 127.0.0.1 sent has the sha256 {found}, not {DIGEST[:8]}…, and is removed"
    assert place.leftovers() == []


def test_a_cached_file_that_was_spoilt_is_fetched_again(place: Fetching) -> None:
    place.path.parent.mkdir()
    place.path.write_bytes(b"spoilt")
    with serving(CONTENT) as server:
        place.fetch(server)
    assert place.path.read_bytes() == CONTENT
    assert "and is removed" in place.said[0]


@pytest.mark.parametrize("says_length", [True, False])
def test_more_bytes_than_the_limit_are_refused(place: Fetching, says_length: bool) -> None:
    with serving(CONTENT) as server:
        server.says_length = says_length
        assert "more than 1,000,000 bytes" in place.refused(server, largest=1_000_000)
    assert place.leftovers() == []


@pytest.mark.parametrize("target", ["https://127.0.0.1:1/there", "file:///etc/passwd", "ftp://127.0.0.1/there"])
def test_a_redirect_to_another_scheme_is_not_followed(place: Fetching, target: str) -> None:
    with serving(CONTENT) as server:
        server.redirect = target
        message = place.refused(server)
    assert message.startswith(f"cannot fetch {server.url}/weights.pth: the server ")
    assert len(server.requests) == 1


def test_a_redirect_within_the_scheme_is_followed_with_the_range(place: Fetching) -> None:
    with serving(CONTENT) as server:
        server.redirect, server.cut_after = f"{server.url}/there", [1_000_000]
        place.fetch(server)
    assert place.path.read_bytes() == CONTENT
    assert [request.get("range") for request in server.requests[2:]] == ["bytes=1000000-"] * 2


def test_redirects_in_a_circle_end(place: Fetching) -> None:
    with serving(CONTENT) as server:
        server.redirect = "/again"
        assert "the server answers 302" in place.refused(server)


def test_a_refusal_of_the_server_is_reported(place: Fetching) -> None:
    with serving(CONTENT) as server:
        server.status = 404
        assert place.refused(server) == f"cannot fetch {server.url}/weights.pth: the server answers 404"


def test_without_a_listener_the_error_line_says_so(place: Fetching) -> None:
    with serving(CONTENT) as server:
        pass
    assert place.refused(server) == f"cannot fetch {server.url}/weights.pth: no connection"


def test_a_server_that_never_answers_is_left(place: Fetching, monkeypatch: pytest.MonkeyPatch) -> None:
    never = threading.Event()

    def open_never(*_arguments: object) -> None:
        never.wait(30)
        raise OSError

    monkeypatch.setattr("training.weights.http_get.OPEN_TIMEOUT_S", 0.01)
    monkeypatch.setattr("training.weights.http_get._open_at_once", open_never)
    with serving(CONTENT) as server:
        assert "no answer within" in place.refused(server)
    never.set()


def test_two_at_once_fetch_it_once(place: Fetching) -> None:
    other = Fetching(place.path)
    is_waiting = threading.Event()
    with serving(CONTENT) as server, ThreadPoolExecutor(2) as threads:
        server.gate = threading.Event()
        first = threads.submit(place.fetch, server)
        assert server.has_asked.wait(30)
        other.said = _Signalling(is_waiting)
        second = threads.submit(other.fetch, server)
        assert is_waiting.wait(30)
        server.gate.set()
        first.result(30)
        second.result(30)
        assert len(server.requests) == 1
    assert other.said == ["another process is fetching weights.pth; waiting for it"]
    assert place.path.read_bytes() == CONTENT
    assert place.leftovers() == []


class _Signalling(list[str]):
    def __init__(self, event: threading.Event) -> None:
        super().__init__()
        self._event = event

    def append(self, line: str) -> None:
        super().append(line)
        self._event.set()


def test_a_full_disk_is_one_line(place: Fetching, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_self: object, _chunk: bytes) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module._Partial, "append", fail)
    with serving(CONTENT) as server:
        assert "No space left on device" in place.refused(server)


def test_a_place_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    place = Fetching(tmp_path / "file" / "weights.pth")
    with serving(CONTENT) as server, pytest.raises(DownloadError, match=r"cannot write .*weights\.pth: File exists"):
        place.fetch(server)


@pytest.mark.parametrize("url", ["file:///etc/passwd", "ftp://127.0.0.1/weights.pth", "http://[", "weights.pth"])
def test_an_address_that_is_none_of_the_web_is_refused(place: Fetching, url: str) -> None:
    with pytest.raises(DownloadError, match="cannot fetch"):
        download(url, place.path, digest=DIGEST, largest=1, log=place.said.append)
