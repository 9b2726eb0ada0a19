"""The last log lines of a start: the layout, the addresses, and a command to try."""

from service.inference.layout import WorkerLayout

_EVERY_ADDRESS = ("0.0.0.0", "[::]")  # noqa: S104 - compared, not bound


def startup_message(pid: int, layout: WorkerLayout, address: str, admin_address: str, *, needs_key: bool) -> list[str]:
    """Return the lines for a supervisor with this process id and ports with these addresses."""
    processes = _counted(layout.processes, "process", "es")
    threads = _counted(layout.engine_threads, "engine thread", "s")
    here = _reachable(address)
    key = '-H "X-Api-Key: $KEY" ' if needs_key else ""
    return [
        f"supervisor {pid} runs {processes}, {threads} in each; kill -HUP {pid} reloads the models",
        f"listening on {address}, metrics on {admin_address}/metrics",
        f"open {here} in a browser, or: curl {key}-F file=@photo.jpg {here}/classify",
    ]


def _counted(count: int, noun: str, plural_ending: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}{plural_ending}"


def _reachable(address: str) -> str:
    """Return an address that a browser on this machine can open: a wildcard address becomes localhost."""
    for every in _EVERY_ADDRESS:
        address = address.replace(f"//{every}:", "//localhost:")
    return address
