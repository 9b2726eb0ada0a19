"""Who may ask: every rule by itself, and over HTTP before a body is read."""

import hashlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.datastructures import Headers
from starlette.middleware.cors import CORSMiddleware
from starlette.types import Message, Receive, Scope, Send
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from service.access_control.access_policy import PREFLIGHT_HEADERS, Access, read_hosts, read_origins, read_proxies
from service.access_control.api_keys import BadKeyFile
from service.app import create_app
from service.errors import BadRequest
from service.settings import Settings
from tests.service.api.endpoints.test_classify import assert_problem
from tests.service.conftest import client_of

KEY = "correct-horse"
SITE = "https://app.example.org"


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    path = tmp_path / "keys"
    path.write_text(f"someone {hashlib.sha256(KEY.encode()).hexdigest()}\n")
    return path


@pytest.fixture
async def guarded(models: Path, key_file: Path) -> Any:
    settings = Settings(models=models, api_keys_file=key_file, cors_origins=SITE, trusted_hosts="service,*.example.org")
    async with client_of(create_app(settings)) as client:
        yield client


@pytest.mark.anyio
async def test_without_a_key_a_request_is_refused_before_its_body_is_read(guarded: httpx.AsyncClient) -> None:
    read = 0

    async def body() -> AsyncIterator[bytes]:
        nonlocal read
        for _ in range(1000):
            read += 1
            yield b"x" * 10_000

    answer = await guarded.post("/classify", content=body())
    assert_problem(answer, 401, "unauthorized")
    assert answer.headers["www-authenticate"].startswith("Bearer")
    assert read < 20  # the little that is discarded after an early answer
    for headers in ({"x-api-key": "wrong"}, {"authorization": "Bearer wrong"}, {"authorization": f"Basic {KEY}"}):
        assert_problem(await guarded.post("/classify", content=b"x", headers=headers), 401, "unauthorized")


@pytest.mark.anyio
@pytest.mark.parametrize("headers", [{"x-api-key": KEY}, {"authorization": f"Bearer {KEY}"}])
async def test_a_key_opens_everything(guarded: httpx.AsyncClient, red: bytes, headers: dict[str, str]) -> None:
    assert (await guarded.post("/classify", content=red, headers=headers)).status_code == 200
    assert (await guarded.get("/models", headers=headers)).status_code == 200


@pytest.mark.anyio
async def test_health_and_the_page_need_no_key_and_all_else_does(guarded: httpx.AsyncClient) -> None:
    for path in ("/health/live", "/health/ready", "/", "/app.js", "/docs", "/openapi.json", "/swagger-ui/LICENSE.txt"):
        assert (await guarded.get(path)).status_code == 200
    for path in ("/models", "/models/tiny", "/nothing", "/classify", "/health"):
        refused = await guarded.get(path)
        assert (refused.status_code, refused.headers.get("connection")) == (401, None)
    assert "securitySchemes" in (await guarded.get("/openapi.json")).json()["components"]


@pytest.mark.anyio
async def test_a_name_that_is_not_this_servers_is_refused(guarded: httpx.AsyncClient) -> None:
    assert_problem(await guarded.get("/", headers={"host": "evil.test"}), 400, "bad_host")
    assert (await guarded.get("/", headers={"host": "a.example.org:8000"})).status_code == 200
    assert (await guarded.get("/health/ready", headers={"host": "10.1.2.3:8000"})).status_code == 200


@pytest.mark.anyio
async def test_a_page_of_a_named_site_may_ask_and_of_others_not(guarded: httpx.AsyncClient, red: bytes) -> None:
    asks = {"origin": SITE, "access-control-request-method": "POST", "access-control-request-headers": "x-api-key"}
    preflight = await guarded.options("/classify", headers=asks)
    assert preflight.status_code == 204
    assert preflight.headers["access-control-allow-origin"] == SITE
    assert "x-api-key" in preflight.headers["access-control-allow-headers"]
    assert "POST" in preflight.headers["access-control-allow-methods"]
    answer = await guarded.post("/classify", content=red, headers={"origin": SITE, "x-api-key": KEY})
    assert answer.headers["access-control-allow-origin"] == SITE
    assert answer.headers["vary"] == "origin"
    refused = await guarded.post("/classify", headers={"origin": SITE})
    assert (refused.status_code, refused.headers["access-control-allow-origin"]) == (401, SITE)
    assert "connection" not in preflight.headers
    assert_problem(await guarded.options("/classify", headers={**asks, "host": "evil.test"}), 400, "bad_host")
    foreign = await guarded.options("/classify", headers={**asks, "origin": "https://evil.test"})
    assert foreign.status_code == 401
    assert "access-control-allow-origin" not in foreign.headers


@pytest.mark.anyio
async def test_without_settings_no_page_of_another_site_may_ask(client: httpx.AsyncClient) -> None:
    headers = {"origin": SITE, "access-control-request-method": "POST"}
    for answer in (await client.options("/classify", headers=headers), await client.get("/models", headers=headers)):
        assert not [name for name in answer.headers if name.startswith("access-control")]
        assert "vary" not in answer.headers


OTHER = "https://other.example.org"


async def of_starlette(origins: list[str], headers: dict[bytes, bytes]) -> dict[bytes, bytes]:
    """The headers that Starlette's middleware adds to a response."""
    sent: list[Any] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})

    async def send(message: Message) -> None:
        sent.append(message)

    middleware = CORSMiddleware(app, allow_origins=origins, expose_headers=["x-request-id"])
    await middleware({"type": "http", "method": "GET", "headers": list(headers.items())}, NotImplemented, send)
    return dict(sent[0]["headers"])


@pytest.mark.anyio
@pytest.mark.parametrize("origins", [SITE, f"{SITE},{OTHER}", "*"])
@pytest.mark.parametrize("origin", [SITE, OTHER, "https://evil.test", "null", None])
async def test_a_browser_gets_the_headers_of_starlettes_middleware(origins: str, origin: str | None) -> None:
    headers = {} if origin is None else {b"origin": origin.encode()}
    expected = await of_starlette(origins.split(","), headers)
    given = dict(Access(origins=read_origins(origins)).cors_headers(headers))
    allowed = b"access-control-allow-origin"
    assert given.get(allowed) == expected.get(allowed)
    assert given[b"vary"] == expected[b"vary"].lower()
    if allowed in given:
        assert set(given) == set(expected)


@pytest.mark.anyio
async def test_a_preflight_is_allowed_what_starlettes_middleware_allows() -> None:
    given = dict(PREFLIGHT_HEADERS)
    methods, names = (given[b"access-control-allow-" + kind].decode() for kind in (b"methods", b"headers"))
    asks = {"origin": SITE, "access-control-request-method": "POST", "access-control-request-headers": names}
    starlette = CORSMiddleware(NotImplemented, [SITE], methods.split(", "), names.split(", "))
    expected = starlette.preflight_response(request_headers=Headers(asks))
    assert expected.status_code == 200
    assert expected.headers["access-control-allow-methods"] == methods
    assert expected.headers["access-control-max-age"] == given[b"access-control-max-age"].decode()
    assert set(names.split(", ")) <= set(expected.headers["access-control-allow-headers"].lower().split(", "))


@pytest.mark.anyio
async def test_a_file_of_keys_that_cannot_be_used_stops_the_start(models: Path, tmp_path: Path) -> None:
    with pytest.raises(BadKeyFile, match="cannot be read"):
        create_app(Settings(models=models, api_keys_file=tmp_path / "none"))


@pytest.mark.parametrize(
    ("host", "is_ours"),
    [
        (b"example.org", True),
        (b"EXAMPLE.org:80", True),
        (b"a.b.example.net", True),
        (b"example.net", False),
        (b"evilexample.net", False),
        (b"[::1]:8000", True),
        (b"example.org.evil.test", False),
        (b"", False),
        (b"example.org:80:80", False),
        (b"\xff", False),
    ],
)
def test_hosts_are_names_or_everything_below_a_name(host: bytes, is_ours: bool) -> None:
    access = Access(hosts=read_hosts("example.org, *.example.net,[::1]"))
    if is_ours:
        access.check_host("/classify", {b"host": host})
    else:
        with pytest.raises(BadRequest):
            access.check_host("/classify", {b"host": host})


@pytest.mark.parametrize(
    ("peer", "forwarded", "client"),
    [
        ("192.0.2.1", b"198.51.100.1", "192.0.2.1"),
        ("10.0.0.1", b"198.51.100.1", "198.51.100.1"),
        ("10.0.0.1", b"1.2.3.4, 198.51.100.1, 10.2.3.4", "198.51.100.1"),
        ("10.0.0.1", b"10.9.9.9", "10.9.9.9"),
        ("10.0.0.1", b"198.51.100.1:4711", "198.51.100.1"),
        ("10.0.0.1", b"[2001:db8::1]:443, 10.0.0.2", "2001:db8::1"),
        ("10.0.0.1", b"nonsense", "10.0.0.1"),
        ("10.0.0.1", b"1.2.3.4, nonsense, 10.0.0.2", "10.0.0.2"),
        ("10.0.0.1", b"2001:db8::1", "2001:db8::1"),
        ("10.0.0.1", b"", "10.0.0.1"),
        (None, b"1.2.3.4", None),
    ],
)
def test_only_named_proxies_are_believed(peer: str | None, forwarded: bytes, client: str | None) -> None:
    access = Access(proxies=read_proxies("10.0.0.0/8"))
    assert access.client_of(peer, {b"x-forwarded-for": forwarded}) == client
    assert Access().client_of(peer, {b"x-forwarded-for": forwarded}) == peer


async def of_uvicorn(peer: str, forwarded: bytes) -> str:
    """The client's address by uvicorn's middleware."""
    clients: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        clients.append(scope["client"])

    scope: Any = {"type": "http", "client": (peer, 1), "headers": [(b"x-forwarded-for", forwarded)]}
    await ProxyHeadersMiddleware(app, ["10.0.0.0/8", "2001:db8::1"])(scope, NotImplemented, NotImplemented)
    return str(clients[0][0])


@pytest.mark.anyio
@pytest.mark.parametrize("peer", ["10.0.0.1", "192.0.2.1", "2001:db8::1"])
@pytest.mark.parametrize(
    "forwarded",
    [
        b"198.51.100.1",
        b"1.2.3.4, 198.51.100.1,10.2.3.4",
        b"10.9.9.9, 10.8.8.8",
        b"198.51.100.1:4711, 2001:db8::1",
        b"[2001:db8::7]:443",
        b"",
    ],
)
async def test_a_chain_of_addresses_is_read_as_uvicorns_middleware_reads_it(peer: str, forwarded: bytes) -> None:
    access = Access(proxies=read_proxies("10.0.0.0/8,2001:db8::1"))
    for _ in ("read", "from the cache"):
        assert access.client_of(peer, {b"x-forwarded-for": forwarded}) == await of_uvicorn(peer, forwarded)


@pytest.mark.anyio
@pytest.mark.parametrize("text", [b"nonsense", b"a" * 60_000, b"\x1b[31m", b"10.0.0.1 " * 9])
async def test_a_text_that_is_no_address_never_reaches_the_log(text: bytes) -> None:
    access = Access(proxies=read_proxies("10.0.0.0/8"))
    assert access.client_of("10.0.0.1", {b"x-forwarded-for": b"1.2.3.4, " + text + b", 10.0.0.2"}) == "10.0.0.2"
    assert await of_uvicorn("10.0.0.1", text) != "10.0.0.1"  # the reason for code of our own


@pytest.mark.parametrize(
    ("read", "text"),
    [(read_hosts, "a b"), (read_hosts, ""), (read_hosts, "*"), (read_origins, "example.org"), (read_proxies, "proxy")],
)
def test_lists_that_make_no_sense_are_refused(read: Any, text: str) -> None:
    with pytest.raises(ValueError):
        read(text)
