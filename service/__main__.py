"""`serve-resnet`: read the settings, open the two ports, and run the supervisor, whose workers load the models.

The options are made from `settings.Settings`. Only the workers import the framework and the engine.
"""

import asyncio
import contextlib
import errno
import inspect
import ipaddress
import logging
import os
import resource
import signal
import socket
import sys
from typing import Annotated, Any, Literal, NoReturn, get_args, get_origin

import typer
from pydantic import ValidationError

from service.api.admin import AdminAccess
from service.http.access_log import AccessLog, LogHandler, as_json, as_text
from service.http.api_keys import BadKeyFile, read_key_file
from service.http_server.server import Drain
from service.inference.layout import WorkerLayout, choose_layout
from service.model_files.repository import ModelFile, ModelRepositoryError, locate_models, read_lineup
from service.processes.model_validation import RepositoryConfig
from service.processes.shutdown import StartFailed
from service.processes.supervisor import Supervisor
from service.processes.worker_handle import WorkerSpec
from service.settings import ENVIRONMENT_PREFIX, Settings, expected_value
from service.system.cores import available_cores
from service.system.shared_counters import SharedLoad
from service.telemetry.log_writer import LogWriter
from service.telemetry.otlp import BadEndpoint, collector

_BACKLOG = 2048
_MANY_FILES = 65_536
# Flags of Triton, TorchServe and KServe's runtimes, without dashes and underscores, and the flag that does the same.
_FLAGS_OF_OTHERS = {
    **dict.fromkeys(("modelrepository", "modelstore", "modelsdir", "modeldir"), "--models"),
    "modelname": "--model-name",
    "httpport": "--port",
    "httpaddress": "--host",
    "metricsport": "--admin-port",
    "metricsaddress": "--admin-host",
}
_WITHOUT_DASHES = str.maketrans("", "", "-_")


def main() -> None:
    """Run the server until a signal stops it. Exits with 1 and one line for an error that an operator can fix."""
    if sys.platform != "linux":
        _fail(f"this runs on Linux, not on {sys.platform}; run it in a container: docker compose up")
    _open_standard_streams()
    _refuse_flags_of_others(sys.argv[1:])
    command = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
    command.command(help="Serve the models in a folder over HTTP.")(_with_a_flag_per_setting(_serve_with))
    command()


def _refuse_flags_of_others(arguments: list[str]) -> None:
    """Exit for a flag of another server, and name the one of this server."""
    for argument in arguments:
        given = argument.partition("=")[0]
        ours = _FLAGS_OF_OTHERS.get(given.translate(_WITHOUT_DASHES)) if given.startswith("--") else None
        if ours not in (None, given):
            _fail(f"there is no option {given}; use {ours}")


def _open_standard_streams() -> None:
    """Open /dev/null for a closed stdin, stdout or stderr: else a socket would get its number and receive the log."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest free number, which is this one


def _with_a_flag_per_setting(function: Any) -> Any:
    """Return the function with one text option per setting; `Settings` validates the values."""

    def run(**flags: str | None) -> None:
        function({name: value for name, value in flags.items() if value is not None})

    parameters = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=_option(name))
        for name in Settings.model_fields
    ]
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return run


def _option(name: str) -> Any:
    field = Settings.model_fields[name]
    default = "" if field.default is None else f" [default: {field.default}]"
    return Annotated[
        str | None,
        typer.Option(
            _flag(name),
            help=f"{field.description}{default} [{_variable(name)}]",
            show_default=False,
            metavar=_value(name),
        ),
    ]


def _value(name: str) -> str:
    """Return the placeholder of a value in the help: its choices, or VALUE."""
    kind = Settings.model_fields[name].annotation
    return "|".join(get_args(kind)) if get_origin(kind) is Literal else "VALUE"


def _serve_with(flags: dict[str, str]) -> None:
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: os._exit(0))  # until the server runs there is nothing to clean up
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # no model serves yet
    settings = _read_settings(flags)
    request_log = _start_log(settings.log)
    admin_access = _admin_access(settings)
    _check_collector()
    repository = _repository(settings)
    _allow_many_files()
    listener = _listen(settings.host, settings.port, "")
    admin_listener = _listen(settings.admin_host, settings.admin_port, "admin_")

    shared_load = SharedLoad(max(available_cores(), settings.processes or 0))

    def worker_main(spec: WorkerSpec, channel: socket.socket) -> int:
        from service.processes.worker import run_worker

        return run_worker(settings, spec, shared_load, listener, channel, request_log)

    supervisor = Supervisor(
        worker_main,
        shared_load=shared_load,
        listener=listener,
        drain=Drain(settings.drain_delay_s, settings.drain_timeout_s),
        layout=_layout(settings),
        repository=repository,
        admin_access=admin_access,
        request_log=request_log,
        needs_key=settings.api_keys_file is not None,
    )
    try:
        status = asyncio.run(supervisor.run(admin_listener))
    except StartFailed as failure:
        _fail(str(failure))
    logging.shutdown()
    os._exit(status)  # the system frees the memory at once; Python's own exit takes up to a second


def _start_log(wanted: str) -> AccessLog | None:
    """Let a thread write the log to stderr; return the log of requests, or None if it is off."""
    is_json = wanted == "json" or (wanted == "auto" and not os.isatty(2))
    writer, form = LogWriter(), as_json if is_json else as_text
    logging.basicConfig(level=logging.INFO, handlers=[LogHandler(writer, form)])
    logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)  # our own log has its events
    return None if wanted == "off" else AccessLog(writer, form)


def _admin_access(settings: Settings) -> AdminAccess:
    try:
        keys = None if settings.admin_keys_file is None else read_key_file(settings.admin_keys_file)
    except BadKeyFile as error:
        _fail(str(error))
    return AdminAccess(keys, is_local=_is_loopback(settings.admin_host))


def _check_collector() -> None:
    try:
        collector()
    except BadEndpoint as error:
        _fail(str(error))


def _is_loopback(host: str) -> bool:
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(host).is_loopback
    return host == "localhost"


def _repository(settings: Settings) -> RepositoryConfig:
    def validation_main(file: ModelFile, accepted: frozenset[str], channel: socket.socket) -> int:
        from service.processes.validation_process import validate

        return validate(settings, file, accepted, channel)

    try:
        location = locate_models(settings.models, settings.model_name)
        serving_set = read_lineup(location, default_model=settings.default_model, latest=settings.latest_versions)
    except ModelRepositoryError as error:
        _fail(str(error))
    return RepositoryConfig(location, settings.latest_versions, serving_set, validation_main, settings.load_timeout_s)


def _layout(settings: Settings) -> WorkerLayout | None:
    """Return the layout if `--processes` sets it; None: the default model has to be measured first."""
    if settings.processes is None:
        return None
    return choose_layout(
        single_image_s=0.0,
        is_on_gpu=False,
        cores=available_cores(),
        processes=settings.processes,
        engine_threads=settings.engine_threads,
    )


def _read_settings(flags: dict[str, Any]) -> Settings:
    try:
        return Settings(**flags)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        name = str(first["loc"][0])
        _fail(f"{_flag(name)} ({_variable(name)}) must be {expected_value(name)}; it is {first['input']!r}")


def _listen(host: str, port: int, prefix: str) -> socket.socket:
    """Return a listening socket. Clients that connect while the models load wait in its backlog."""
    try:
        family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[
            0
        ]
    except (OSError, UnicodeError):
        _fail(f"unknown address: {host!r}; choose another with {_flag(prefix + 'host')}")
    listener = socket.socket(family, kind)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind(address)
        listener.listen(_BACKLOG)
    except PermissionError:
        _fail(f"no permission to listen on port {port}; choose another with {_flag(prefix + 'port')}")
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            _fail(f"port {port} on {host} is in use; choose another with {_flag(prefix + 'port')}")
        _fail(f"{host} is not an address of this machine; choose another with {_flag(prefix + 'host')}")
    return listener


def _allow_many_files() -> None:
    """Raise the limit of open files: each connection is one, and many systems allow only 1024 by default."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY:
        wanted = _MANY_FILES if hard == resource.RLIM_INFINITY else min(hard, _MANY_FILES)
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), hard))


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")


def _variable(name: str) -> str:
    return ENVIRONMENT_PREFIX + name.upper()


def _fail(message: str) -> NoReturn:
    typer.echo(f"serve-resnet: {message}", err=True)
    raise SystemExit(1)


if __name__ == "__main__":
    main()
