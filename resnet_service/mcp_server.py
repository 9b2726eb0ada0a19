"""`resnet-mcp`: tools for agents that speak the Model Context Protocol, over stdio or streamable HTTP.

Three tools that change nothing: `classify_image`, `explain_image` and `list_models`. A running server answers
(`--server`), or a model in this process (`--model`). Paths of files are accepted over stdio only: over HTTP, a caller
on another machine could read files of this one.
"""

import base64
import binascii
from dataclasses import asdict
from enum import StrEnum
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from resnet_service.client import Client
from resnet_service.model import Model
from resnet_service.results import ResnetError

try:
    from mcp.server import MCPServer
    from mcp.server.mcpserver import Image
    from mcp.server.mcpserver.exceptions import ToolError
except ImportError:
    raise ImportError("the package mcp is missing; install it with pip install 'resnet-service[mcp]'") from None

_INSTRUCTIONS = "Classifies images with residual networks. The labels are those of the model; list_models names them."
_IMAGE_OR_PATH = "`image` is the path of a JPEG, PNG or WebP file, or such a file as base64 or as a data URL."
_IMAGE = "`image` is a JPEG, PNG or WebP file as base64 or as a data URL."
_LONGEST_PATH = 4096
_MOST_LABELS = 1000


class Transport(StrEnum):
    """How an agent connects."""

    STDIO = "stdio"
    HTTP = "http"


class Tools:
    """The tools. Each raises ToolError, whose message is for the agent."""

    def __init__(self, source: Model | Client, *, accepts_paths: bool) -> None:
        self._source = source
        self._accepts_paths = accepts_paths

    def classify_image(self, image: str, top_k: int = 5, model: str | None = None) -> dict[str, Any]:
        """Return the best labels of an image with their probabilities, and whether the model is confident."""
        content = self._content(image)
        if not 1 <= top_k <= _MOST_LABELS:
            raise ToolError(f"top_k must be from 1 to {_MOST_LABELS}, not {top_k}")
        try:
            answer = self._source.classify(content, top_k=top_k, **self._options(model))
        except ResnetError as error:
            raise ToolError(error.detail) from None
        return {
            "model": f"{answer.model.name}:{answer.model.version}",
            "predictions": [asdict(best) for best in answer.predictions],
            "confident": answer.confident,
        }

    def explain_image(self, image: str, label: str | None = None, model: str | None = None) -> list[Any]:
        """Return the image with a heat map over it: where the network saw a label, by default the best one."""
        content = self._content(image)
        try:
            overlay = self._source.overlay(content, label=label, **self._options(model))
        except ResnetError as error:
            raise ToolError(error.detail) from None
        return [Image(data=overlay, format="png")]

    def list_models(self) -> dict[str, Any]:
        """Return the models that answer, with their labels, and the default one."""
        if isinstance(self._source, Model):
            info = self._source.info
            return {"models": [{"name": info.name, "default": True, "labels": self._source.labels}]}
        try:
            models = [model for model in self._source.models() if model.labels]
        except ResnetError as error:
            raise ToolError(error.detail) from None
        return {"models": [{"name": m.name, "default": m.is_default, "labels": m.labels} for m in models]}

    def _options(self, model: str | None) -> dict[str, Any]:
        if not isinstance(self._source, Model):
            return {"model": model}
        if model not in (None, self._source.info.name):
            raise ToolError(f"There is no model {model!r}; the only one is {self._source.info.name}.")
        return {}

    def _content(self, image: str) -> bytes:
        """Return the bytes of an image file."""
        if self._accepts_paths and len(image) <= _LONGEST_PATH and Path(image).is_file():
            return Path(image).read_bytes()
        text = image.partition(",")[2] if image.startswith("data:") else image
        try:
            return base64.b64decode(text, validate=True)
        except (binascii.Error, ValueError):
            kinds = "no file and no base64" if self._accepts_paths else "no base64"
            raise ToolError(f"`image` is {kinds}: {image[:40]!r}") from None


def create_server(source: Model | Client, *, accepts_paths: bool) -> MCPServer:
    """Return the server; `accepts_paths` allows tools to read files of this machine."""
    server = MCPServer("resnet-service", instructions=_INSTRUCTIONS, version=version("resnet-service"))
    tools = Tools(source, accepts_paths=accepts_paths)
    about = _IMAGE_OR_PATH if accepts_paths else _IMAGE
    server.add_tool(tools.classify_image, description=f"{tools.classify_image.__doc__} {about}")
    server.add_tool(tools.explain_image, description=f"{tools.explain_image.__doc__} {about}", structured_output=False)
    server.add_tool(tools.list_models)
    return server


def serve(
    server: Annotated[str | None, typer.Option(metavar="URL", help="Running server that answers.")] = None,
    model: Annotated[
        Path | None, typer.Option(help="Model in this process instead: its file or folder, as models/NAME.")
    ] = None,
    api_key: Annotated[str | None, typer.Option(help="Key for the server.", envvar="RESNET_API_KEY")] = None,
    transport: Annotated[Transport, typer.Option(help="http: streamable HTTP at /mcp, without paths.")] = (
        Transport.STDIO
    ),
    host: Annotated[str, typer.Option(help="Address for http, which has no keys of its own.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65_535, help="Port for http.")] = 8002,
) -> None:
    """Offer the tools classify_image, explain_image and list_models to an agent (MCP)."""
    if (server is None) == (model is None):
        _fail("choose one of --server URL and --model models/NAME")
    try:
        source = Model.load(model) if model is not None else Client(server or "", api_key=api_key)
    except (ResnetError, ValueError) as error:
        _fail(str(error))
    tools = create_server(source, accepts_paths=transport is Transport.STDIO)
    if transport is Transport.STDIO:
        tools.run("stdio")
    else:
        tools.run("streamable-http", host=host, port=port)


def main() -> None:
    """Run the command."""
    command = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
    command.command()(serve)
    command()


def _fail(message: str) -> NoReturn:
    typer.echo(f"resnet-mcp: {message}", err=True)
    raise SystemExit(1)
