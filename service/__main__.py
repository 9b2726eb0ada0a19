"""`serve-resnet`: read the settings, open the two ports, and run the supervisor, whose workers load the models.

Only the workers import the framework and the engine.
"""

import asyncio
import contextlib
import errno
import ipaddress
import logging
import os
import resource
import signal
import socket
import sys

from service.access_control.access_policy import read_hosts
from service.access_control.admin_access import AdminAccess
from service.access_control.api_keys import BadKeyFile, read_key_file
from service.access_control.rate_limits import make_rate_limits
from service.flags import fail, flag_of, read_settings
from service.http.access_log import AccessLog, LogHandler, as_json, as_text
from service.http_server.server import Drain
from service.inference.layout import WorkerLayout, choose_layout
from service.model_files.repository import ModelFile, ModelRepositoryError
from service.model_files.serving_set import locate_models, read_serving_set
from service.model_files.signature import BadModelKeys, read_model_keys
from service.model_updates.model_validation import RepositoryConfig
from service.processes.worker_handle import WorkerSpec
from service.settings import Settings
from service.supervisor.shutdown import StartFailed
from service.supervisor.supervisor import Supervisor
from service.system.cores import available_cores
from service.system.shared_counters import SharedLoad
from service.telemetry.log_writer import LogWriter
from service.telemetry.otlp import BadEndpoint, collector

_BACKLOG = 2048
_MANY_FILES = 65_536


def main() -> None:
    """Run the server until a signal stops it. Exits with 1 and one line for an error that an operator can fix."""
    if sys.platform != "linux":
        fail(f"this runs on Linux, not on {sys.platform}; run it in a container: docker compose up")
    _open_standard_streams()
    _serve(sys.argv[1:])


def _open_standard_streams() -> None:
    """Open /dev/null for a closed stdin, stdout or stderr. A socket would get its number, and the log with it."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest free number, which is this one


def _serve(arguments: list[str]) -> None:
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: os._exit(0))  # before the server runs, nothing needs cleaning up
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # no model is served yet
    settings = read_settings(arguments)
    request_log = _start_log(settings.log)
    admin_access = _admin_access(settings)
    _check_model_keys(settings)
    _check_collector()
    repository = _repository(settings)
    _allow_many_files()
    listener = _listen(settings.host, settings.port, "")
    admin_listener = _listen(settings.admin_host, settings.admin_port, "admin_")

    shared_load = SharedLoad(max(available_cores(), settings.processes or 0))
    rate_limits = make_rate_limits(settings.rate_limit_per_s, settings.rate_limit_burst)

    def worker_main(spec: WorkerSpec, channel: socket.socket) -> int:
        from service.worker.worker import run_worker

        return run_worker(settings, spec, shared_load, listener, channel, request_log, rate_limits)

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
        fail(str(failure))
    logging.shutdown()
    os._exit(status)  # the system frees the memory at once; Python's own exit takes up to a second


def _start_log(wanted: str) -> AccessLog | None:
    """Start the thread that writes the log to stderr; return the access log, or None if it is off."""
    is_json = wanted == "json" or (wanted == "auto" and not os.isatty(2))
    writer, form = LogWriter(), as_json if is_json else as_text
    logging.basicConfig(level=logging.INFO, handlers=[LogHandler(writer, form)])
    logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)  # the access log has these events
    return None if wanted == "off" else AccessLog(writer, form)


def _admin_access(settings: Settings) -> AdminAccess:
    try:
        keys = None if settings.admin_keys_file is None else read_key_file(settings.admin_keys_file)
    except BadKeyFile as error:
        fail(str(error))
    hosts = () if settings.trusted_hosts is None else read_hosts(settings.trusted_hosts)
    return AdminAccess(keys, is_local=_is_loopback(settings.admin_host), hosts=hosts)


def _check_model_keys(settings: Settings) -> None:
    """Exit for keys that cannot be used; the processes that load models read them again."""
    try:
        if settings.model_keys is not None:
            read_model_keys(settings.model_keys)
    except BadModelKeys as error:
        fail(str(error))


def _check_collector() -> None:
    try:
        collector()
    except BadEndpoint as error:
        fail(str(error))


def _is_loopback(host: str) -> bool:
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(host).is_loopback
    return host == "localhost"


def _repository(settings: Settings) -> RepositoryConfig:
    def validation_main(file: ModelFile, accepted: frozenset[str], channel: socket.socket) -> int:
        from service.model_updates.validation_process import validate

        return validate(settings, file, accepted, channel)

    try:
        location = locate_models(settings.models, settings.model_name)
        serving_set = read_serving_set(location, default_model=settings.default_model, latest=settings.latest_versions)
    except ModelRepositoryError as error:
        fail(str(error))
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


def _listen(host: str, port: int, prefix: str) -> socket.socket:
    """Return a listening socket. Clients that connect while the models load wait in its backlog."""
    try:
        family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[
            0
        ]
    except (OSError, UnicodeError):
        fail(f"unknown address: {host!r}; choose another with {flag_of(prefix + 'host')}")
    listener = socket.socket(family, kind)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind(address)
        listener.listen(_BACKLOG)
    except PermissionError:
        fail(f"no permission to listen on port {port}; choose another with {flag_of(prefix + 'port')}")
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            fail(f"port {port} on {host} is in use; choose another with {flag_of(prefix + 'port')}")
        fail(f"{host} is not an address of this machine; choose another with {flag_of(prefix + 'host')}")
    return listener


def _allow_many_files() -> None:
    """Raise the limit of open files: each connection is one, and many systems allow only 1024 by default."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY:
        wanted = _MANY_FILES if hard == resource.RLIM_INFINITY else min(hard, _MANY_FILES)
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), hard))


if __name__ == "__main__":
    main()
