"""The page at /docs: the OpenAPI document as HTML, made here, so that no browser has to ask another host for it."""

import json
from html import escape
from typing import Any

from service.api.openapi.failures import FAILURES

_PAGE = """<!doctype html>
<html lang="en">
  <head>
    <meta charset="utf-8">
    <meta name="viewport" content="width=device-width, initial-scale=1">
    <meta name="color-scheme" content="light dark">
    <title>{title}: API</title>
    <link rel="icon" href="data:,">
    <link rel="stylesheet" href="/docs.css">
  </head>
  <body>
    <nav><a href="/">Try it</a> <a href="/models">Models</a> <a href="/openapi.json">OpenAPI document</a></nav>
    <h1>{title}</h1>
    <p>{description}</p>
    <pre>curl -F file=@photo.jpg http://127.0.0.1:8000/classify
curl --data-binary @photo.jpg -H 'Content-Type: image/jpeg' 'http://127.0.0.1:8000/classify?top_k=3'</pre>
    {operations}
    <h2>Failures</h2>
    <p>Every failure is an <code>application/problem+json</code> document (RFC 9457). Its <code>code</code> is for
    programs and stays; its <code>detail</code> is for people and may change.</p>
    <table>
      <tr><th>Status</th><th>Code</th><th>For instance</th></tr>
      {failures}
    </table>
  </body>
</html>
"""


def docs_page(document: dict[str, Any]) -> bytes:
    """Return the page for an OpenAPI document."""
    schemas = document["components"]["schemas"]
    operations = [
        _operation(method, path, operation, schemas)
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    ]
    info = document["info"]
    return _PAGE.format(
        title=escape(info["title"]),
        description=escape(info["description"]),
        operations="\n".join(operations),
        failures="\n".join(_failure_rows()),
    ).encode()


def _operation(method: str, path: str, operation: dict[str, Any], schemas: dict[str, Any]) -> str:
    parts = [
        f"<h2><code>{method.upper()} {escape(path)}</code></h2>",
        f"<p>{escape(operation.get('description', operation['summary']))}</p>",
        _table("Parameter", [(_parameter_name(p), p["description"]) for p in operation.get("parameters", ())]),
        _table("Body", [(kind, _fields(kind, body["schema"], schemas)) for kind, body in _bodies(operation).items()]),
        _table("Answer", [(status, answer["description"]) for status, answer in operation["responses"].items()]),
        *(f"<pre>{escape(json.dumps(example, indent=2))}</pre>" for example in _examples(operation)),
    ]
    return "\n".join(part for part in parts if part)


def _parameter_name(parameter: dict[str, Any]) -> str:
    default = parameter["schema"].get("default")
    return str(parameter["name"]) if default is None else f"{parameter['name']} = {default}"


def _bodies(operation: dict[str, Any]) -> dict[str, Any]:
    bodies: dict[str, Any] = operation.get("requestBody", {}).get("content", {})
    return bodies


def _fields(kind: str, schema: dict[str, Any], schemas: dict[str, Any]) -> str:
    described = schemas[schema["$ref"].rpartition("/")[2]] if "$ref" in schema else schema
    fields = described.get("properties", ())
    if kind == "application/json":
        required = described.get("required", ())
        return ", ".join(name if name in required else f"{name} (optional)" for name in fields)
    return f"one field: {' or '.join(fields)}" if fields else "the bytes themselves"


def _examples(operation: dict[str, Any]) -> list[Any]:
    contents = [c for answer in operation["responses"].values() for c in answer.get("content", {}).values()]
    return [content["example"] for content in contents if "example" in content]


def _table(heading: str, rows: list[tuple[str, str]]) -> str:
    if not rows:
        return ""
    lines = [f"<tr><td><code>{escape(name)}</code></td><td>{escape(text)}</td></tr>" for name, text in rows]
    return f"<table><tr><th>{heading}</th><th></th></tr>{''.join(lines)}</table>"


def _failure_rows() -> list[str]:
    return [
        f'<tr id="{code}"><td>{status}</td><td><code>{code}</code></td><td>{escape(detail)}</td></tr>'
        for status, failure in FAILURES.items()
        for code, (_, detail) in failure.codes.items()
    ]
