"""Rate limits from outside: 429 in the form of the route, with Retry-After, for one client and no other."""

import hashlib
from pathlib import Path
from typing import Any

import pytest

from tests.support.servers.served import Served, serving

SLOW = ("--rate-limit-per-s", "0.001", "--rate-limit-burst", "2", "--processes", "2")


def statuses(served: Served, image: bytes, times: int, **headers: str) -> list[int]:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return [served.ask("POST", "/classify", image, named)[0] for _ in range(times)]


def refusal(served: Served, path: str, image: bytes) -> tuple[int, str | None, Any]:
    connection = served.connect()
    connection.request("POST", path, image)
    answer = connection.getresponse()
    body = answer.read()
    connection.close()
    return answer.status, answer.getheader("retry-after"), body


def test_a_client_above_its_limit_gets_429_in_every_process_and_form(models: Path, red: bytes) -> None:
    with serving(models, *SLOW) as served:
        assert statuses(served, red, 4) == [200, 200, 429, 429]
        status, document = served.ask("POST", "/classify", red)
        assert (status, document["code"], document["type"]) == (429, "rate_limited", "/docs#rate_limited")
        status, after, body = refusal(served, "/v2/models/tiny/infer", b"{}")
        assert (status, after) == (429, "1000")
        assert body.startswith(b'{"error":"This client has sent more requests')
        assert b"rate_limit_error" in refusal(served, "/v1/embeddings", b"{}")[2]
        assert served.ask("GET", "/models")[0] == served.ask("GET", "/health/ready")[0] == 200  # not limited
        refused = served.ask_admin("GET", "/metrics")[1]
        assert 'resnet_refusals_total{code="rate_limited"} 5.0' in refused


def test_a_refusal_does_not_read_the_upload(models: Path, red: bytes) -> None:
    with serving(models, *SLOW) as served:
        assert statuses(served, red, 2) == [200, 200]
        with served.raw() as client:
            client.sendall(b"POST /classify HTTP/1.1\r\nHost: a\r\nContent-Length: 20000000\r\n\r\n")
            assert client.recv(100).startswith(b"HTTP/1.1 429 ")


def test_each_key_has_its_own_limit(models: Path, red: bytes, tmp_path: Path) -> None:
    keys = {"anna": "one-key", "bert": "other-key"}
    lines = [f"{name} {hashlib.sha256(key.encode()).hexdigest()}" for name, key in keys.items()]
    (tmp_path / "keys").write_text("\n".join(lines))
    with serving(models, *SLOW, "--api-keys-file", tmp_path / "keys") as served:
        assert statuses(served, red, 3, x_api_key="one-key") == [200, 200, 429]
        assert statuses(served, red, 3, x_api_key="wrong") == [401, 401, 401]
        assert statuses(served, red, 3, x_api_key="other-key") == [200, 200, 429]


@pytest.mark.parametrize(
    ("trusted", "expected"), [(True, [200, 200, 429, 200, 200]), (False, [200, 200, 429, 429, 429])]
)
def test_addresses_behind_a_proxy_count_only_if_it_is_trusted(
    models: Path, red: bytes, trusted: bool, expected: list[int]
) -> None:
    proxies = ("--trusted-proxies", "127.0.0.1") if trusted else ()
    with serving(models, *SLOW, *proxies) as served:
        first = statuses(served, red, 3, x_forwarded_for="192.0.2.1")
        second = statuses(served, red, 2, x_forwarded_for="192.0.2.2")
        assert first + second == expected
