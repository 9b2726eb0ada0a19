"""`resnet-mcp` with the client of the `mcp` package, which passed with version 2.3.0. Skipped where that is missing."""

import base64
import os
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from resnet_service import Client, Model
from tests.support.servers.served import ROOT, free_port, serving, wait_until

mcp = pytest.importorskip("mcp")

pytestmark = pytest.mark.anyio
TOOLS = ["classify_image", "explain_image", "list_models"]


@pytest.fixture(scope="module")
def address(models: Path) -> Iterator[str]:
    with serving(models, "--processes", 1) as served:
        yield f"http://127.0.0.1:{served.port}"


@asynccontextmanager
async def connected(*options: str) -> AsyncIterator[Any]:
    """A client of the command over stdio."""
    command = mcp.StdioServerParameters(
        command=sys.executable,
        args=["-m", "resnet_service.mcp_command", *options],
        cwd=ROOT,
        env=dict(os.environ),
    )
    async with mcp.Client(command) as client:
        yield client


def text(content: bytes) -> str:
    return base64.b64encode(content).decode()


async def assert_works(client: Any, image: str) -> None:
    assert [tool.name for tool in (await client.list_tools()).tools] == TOOLS
    listed = await client.call_tool("list_models", {})
    assert [model["name"] for model in listed.structured_content["models"]] == ["tiny"]
    answer = (await client.call_tool("classify_image", {"image": image, "top_k": 2})).structured_content
    assert answer["model"] == "tiny:1"
    assert [best["label"] for best in answer["predictions"]] == ["red", "black"]
    shown = (await client.call_tool("explain_image", {"image": image, "label": "black"})).content[0]
    assert (shown.type, shown.mime_type) == ("image", "image/png")
    assert base64.b64decode(shown.data).startswith(b"\x89PNG")


async def test_an_agent_over_stdio_uses_a_model_in_process(models: Path, red: bytes, tmp_path: Path) -> None:
    file = tmp_path / "red.jpg"
    file.write_bytes(red)
    async with connected("--model", str(models / "tiny")) as client:
        await assert_works(client, str(file))
        await assert_works(client, f"data:image/jpeg;base64,{text(red)}")


async def test_an_agent_over_stdio_uses_a_running_server(address: str, red: bytes) -> None:
    async with connected("--server", address) as client:
        await assert_works(client, text(red))


async def test_an_agent_over_http_reads_no_files(over_http: str, red: bytes, tmp_path: Path) -> None:
    file = tmp_path / "red.jpg"
    file.write_bytes(red)
    async with mcp.Client(over_http) as client:
        await assert_works(client, text(red))
        refused = await client.call_tool("classify_image", {"image": str(file)})
        assert refused.is_error
        assert "no base64" in refused.content[0].text


@pytest.fixture
def over_http(models: Path) -> Iterator[str]:
    """The address of the command over HTTP."""
    port = free_port()
    command = [sys.executable, "-m", "resnet_service.mcp_command", "--model", str(models / "tiny")]
    with subprocess.Popen([*command, "--transport", "http", "--port", str(port)], cwd=ROOT) as process:
        try:
            wait_until(lambda: is_listening(port) or process.poll() is not None)
            yield f"http://127.0.0.1:{port}/mcp"
        finally:
            process.terminate()


def is_listening(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@pytest.mark.parametrize(
    ("tool", "arguments", "words"),
    [
        ("classify_image", {"image": "no such file"}, "no file and no base64"),
        ("classify_image", {"image": text(b"text")}, "this is text"),
        ("classify_image", {"image": "aGk=", "top_k": 0}, "top_k must be from 1 to 1000"),
        ("classify_image", {"image": "aGk=", "model": "nobody"}, "nobody|choose one of"),
        ("explain_image", {"image": text(b"text")}, "this is text"),
    ],
)
async def test_failures_are_reported_to_the_agent(
    models: Path, address: str, tool: str, arguments: dict[str, Any], words: str
) -> None:
    from resnet_service.mcp_server import create_server

    with Client(address) as http:
        for source in (Model.load(models / "tiny"), http):
            async with mcp.Client(create_server(source, accepts_paths=True)) as client:
                answer = await client.call_tool(tool, arguments)
                assert answer.is_error
                assert any(word in answer.content[0].text for word in words.split("|"))


@pytest.mark.parametrize("options", [(), ("--model", "models/x", "--server", "http://a"), ("--model", "/nowhere")])
def test_a_start_that_makes_no_sense_is_one_line(options: tuple[str, ...]) -> None:
    command = [sys.executable, "-m", "resnet_service.mcp_command", *options]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("resnet-mcp: ")
    assert done.stderr.count("\n") == 1
