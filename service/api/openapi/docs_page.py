"""The page at /docs: Swagger UI, and the table of errors. The `type` of each problem links to a row of it."""

from html import escape

from service.api.openapi.failures import FAILURES

_PAGE = """<!doctype html>
<html lang="en">
  <head>
    <meta charset="utf-8">
    <meta name="viewport" content="width=device-width, initial-scale=1">
    <meta name="color-scheme" content="light dark">
    <title>{title}: API</title>
    <link rel="icon" href="data:,">
    <link rel="stylesheet" href="/swagger-ui/swagger-ui.css">
    <link rel="stylesheet" href="/docs.css">
    <script defer src="/swagger-ui/swagger-ui-bundle.js"></script>
    <script defer src="/docs.js"></script>
  </head>
  <body>
    <header>
      <nav aria-label="Service"><a href="/">Try it</a> <a href="/models">Models</a>
      <a href="/openapi.json">OpenAPI document</a> <a href="#errors">Errors</a></nav>
      <h1>{title}</h1>
      <p>{description}</p>
      <pre>curl -F file=@photo.jpg <span class="address">http://127.0.0.1:8000</span>/classify</pre>
    </header>
    <noscript><p>The list of endpoints needs JavaScript; the OpenAPI document has the same content.</p></noscript>
    <main id="swagger-ui"></main>
    <section class="errors">
      <h2 id="errors">Errors</h2>
      <p>Every error is an <code>application/problem+json</code> document (RFC 9457). Its <code>code</code> is stable
      and meant for programs; its <code>detail</code> is meant for people and may change.</p>
      <table>
        <tr><th>Status</th><th>Code</th><th>Example of a detail</th></tr>
        {failures}
      </table>
    </section>
  </body>
</html>
"""


def docs_page(title: str, description: str) -> bytes:
    """Return the page of an application with this title and description."""
    failures = "\n        ".join(_failure_rows())
    return _PAGE.format(title=escape(title), description=escape(description), failures=failures).encode()


def _failure_rows() -> list[str]:
    return [
        _row(status, code, detail)
        for status, failure in FAILURES.items()
        for code, (_, detail) in failure.codes.items()
    ]


def _row(status: int, code: str, detail: str) -> str:
    name = code.replace("_", "_<wbr>")  # line-break opportunities for narrow pages
    return f'<tr id="{code}"><td>{status}</td><td><code>{name}</code></td><td>{escape(detail)}</td></tr>'
