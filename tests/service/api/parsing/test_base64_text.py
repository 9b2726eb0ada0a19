"""Base64 in all its spellings, read in pieces."""

import base64
import json
import urllib.parse
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.api.parsing import base64_text
from service.api.parsing.base64_text import from_base64
from tests.service.api.endpoints.test_batch import outcomes
from tests.service.conftest import image

URL = b"data:image/jpeg;base64,"


@pytest.fixture
def pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(base64_text, "_PIECE_BYTES", 7)


@given(content=st.binary(max_size=60), width=st.integers(1, 20), ending=st.sampled_from([b"\n", b"\r\n"]))
@pytest.mark.usefixtures("pieces")
def test_every_spelling_stands_for_the_same_bytes(content: bytes, width: int, ending: bytes) -> None:
    plain, for_urls = base64.b64encode(content), base64.urlsafe_b64encode(content)
    wrapped = ending.join(plain[at : at + width] for at in range(0, len(plain), width)) + ending
    escaped = urllib.parse.quote(plain.decode(), safe="").encode()
    for text in (
        *(plain, plain.rstrip(b"="), for_urls, for_urls.rstrip(b"="), wrapped, b" " + plain + b"\n"),
        *(URL + plain, URL + for_urls.rstrip(b"="), URL + wrapped, URL + escaped),
    ):
        assert from_base64(text) == content


@pytest.mark.parametrize(
    "head",
    [b"data:;base64,", b"DATA:IMAGE/PNG;BASE64,", b"data:image/png;charset=utf-8;base64,", b"data:image/png; base64,"],
)
def test_the_head_of_a_data_url_may_be_any(head: bytes) -> None:
    assert from_base64(head + b"cGljdHVyZQ==") == b"picture"


@pytest.mark.parametrize(
    "text",
    [
        *(b"cGlj=dHVy", b"cGljdHVyZQ=", b"cGljdHVyZQ===", b"c", b"cGljd", b"cGlj dHVy", b"cGlj!", b"photo.jpg"),
        *(b"data:image/png,cGlj", b"data:image/png;base64", b"data:text/plain;base64x,cGlj", b"===="),
        *(b"\xc3\xbc", b"QQ==" * 9, b"data:;base64,cGl%6A"),
    ],
)
@pytest.mark.usefixtures("pieces")
def test_what_is_no_base64_is_refused(text: bytes) -> None:
    with pytest.raises(ValueError):
        from_base64(text)


def spellings(content: bytes) -> list[bytes]:
    plain = base64.b64encode(content)
    return [plain, URL + plain, plain.rstrip(b"="), base64.urlsafe_b64encode(content).rstrip(b"=")]


@pytest.mark.anyio
@pytest.mark.parametrize("padding", [0, 20_000], ids=["short", "cut out of the body"])
async def test_the_routes_take_every_spelling(client: httpx.AsyncClient, padding: int) -> None:
    content = image((255, 0, 0), "PNG") + b"\xfb\xff" * padding
    texts = [text.decode() for text in spellings(content)]
    assert outcomes(await client.post("/classify/batch", json={"images": texts})) == ["red"] * len(texts)
    net = json.dumps({"images": texts}).replace("+", "\\u002B").replace("/", "\\/").encode()
    assert outcomes(await client.post("/classify/batch", content=net)) == ["red"] * len(texts)
    request: dict[str, Any] = {
        "inputs": [{"name": "images", "datatype": "BYTES", "shape": [len(texts)], "data": texts}],
        "outputs": [{"name": "probabilities", "parameters": {"classification": 1}}],
    }
    answer = (await client.post("/v2/models/tiny/infer", json=request)).json()
    assert [text.split(":")[2] for text in answer["outputs"][0]["data"]] == ["red"] * len(texts)
