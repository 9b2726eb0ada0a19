"""The supervisor: the process that handles signals, serves the admin port, and runs the workers.

It stays small, without the framework and the engine. It pings every worker each second. A worker whose event loop or
engine threads hang is killed and replaced.
"""

import asyncio
import logging
import os
import socket
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any, Literal

from service.access_control.admin_access import AdminAccess
from service.api.admin import create_admin_app
from service.api.torchserve_management import Managed, WorkerFacts
from service.http.access_log import AccessLog
from service.http.readiness import Readiness
from service.http_server.client_timeouts import ClientTimeouts
from service.http_server.server import Drain, address_of, make_server
from service.inference.layout import WorkerLayout
from service.model_files.repository import ServingSet, VersionState
from service.model_updates.model_rollout import ModelRollout
from service.model_updates.model_updater import ModelUpdater
from service.model_updates.model_validation import ModelValidator, RepositoryConfig
from service.model_updates.version_fallback import VersionFallback
from service.model_updates.version_states import VersionStates
from service.processes.forking import reap_children
from service.processes.signals import ignore_signals, watch_signals
from service.processes.worker_fleet import WorkerFleet
from service.processes.worker_handle import WorkerHandle, WorkerMain
from service.supervisor.first_start import FirstStart
from service.supervisor.shutdown import Shutdown
from service.supervisor.startup_message import startup_message
from service.supervisor.totals import Totals
from service.supervisor.worker_controller import WorkerController
from service.system.background_tasks import Background
from service.system.shared_counters import SharedLoad

log = logging.getLogger(__name__)

_TICK_S = 1.0
_OWN_END_S = 1.0  # beyond the workers' own limit


class Supervisor:
    """Runs one server from its start to its end."""

    def __init__(
        self,
        worker_main: WorkerMain,
        *,
        shared_load: SharedLoad,
        listener: socket.socket,
        drain: Drain,
        layout: WorkerLayout | None,
        repository: RepositoryConfig,
        admin_access: AdminAccess,
        request_log: AccessLog | None = None,
        needs_key: bool = False,
    ) -> None:
        """`layout` is None if the first worker chooses it by measuring the default model."""
        self._listener = listener
        self._drain = drain
        self._admin_access = admin_access
        self._admin_address = ""
        self._request_log = request_log
        self._needs_key = needs_key
        self._readiness, self._shutdown = Readiness(), Shutdown()
        self._validator = ModelValidator(repository.validation_main, repository.load_timeout_s)
        start = partial(WorkerHandle.start, worker_main, listener=listener)
        self._workers = WorkerFleet(start, repository.load_timeout_s)
        self._totals = Totals(self._workers, self._readiness)
        states = VersionStates(lambda outcome: self._totals.count("resnet_reloads", outcome))
        self._rollout = ModelRollout(repository.serving_set, states, self._workers)
        validate = self._validator.validate
        self._updater = ModelUpdater(repository, validate=validate, states=states, rollout=self._rollout)
        self._first_start = FirstStart(
            VersionFallback(repository, validate), self._workers, self._readiness, self._shutdown, restart=self._restart
        )
        self._controller = WorkerController(
            self._workers,
            layout=layout,
            shared_load=shared_load,
            rollout=self._rollout,
            first_start=self._first_start,
            totals=self._totals,
            readiness=self._readiness,
            shutdown=self._shutdown,
            on_ready=self._announce,
        )
        self._reload_requested = asyncio.Event()
        self._tasks, self._loops = Background(lambda: None), Background(lambda: None)

    async def run(self, admin_listener: socket.socket) -> int:
        """Serve until a stop is requested, and return the exit status. Raises StartFailed."""
        watch_signals(stop=self._shutdown.on_signal, reload=self._reload_requested.set, reap=self._reap)
        self._admin_address = address_of(admin_listener)
        app = create_admin_app(
            self._totals.render,
            self._change_models,
            self._readiness,
            self._admin_access,
            self._managed,
            self._request_log,
        )
        admin = make_server(app, self._drain, ClientTimeouts())
        serving_admin = self._tasks.start(admin.serve([admin_listener]))
        self._controller.start_all()
        self._keep_running(self._check_workers)
        self._keep_running(self._reload_on_request)
        self._loops.start(self._first_start.limit_duration())
        await self._shutdown.wait()
        self._loops.cancel()
        await self._stop_workers()
        admin.should_exit = admin.force_exit = True
        await asyncio.wait((serving_admin,))
        ignore_signals()
        status = self._shutdown.exit_status()
        log.info("stopped")
        return status

    async def _change_models(self, action: Literal["load", "unload"], name: str) -> list[VersionState]:
        if self._shutdown.is_requested:
            self._readiness.check_ready()
        return await self._updater.change(action, name)

    def _managed(self) -> Managed:
        """Return what the listing of models shows. Raises NotReady until a worker has loaded the first set."""
        self._readiness.check_started()
        workers = (WorkerFacts(each.index, each.pid, each.is_loaded, each.served_s) for each in self._workers)
        return Managed(self._rollout.serving_set.files, tuple(workers))

    def _keep_running(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Run a loop that lasts as long as the server; restart it after a failure."""
        self._loops.start(work(), on_failure=lambda: self._keep_running(work))

    async def _check_workers(self) -> None:
        while True:
            await asyncio.sleep(_TICK_S)
            self._reap()  # also children that ended before the signal handler was set
            self._workers.check()

    def _reap(self) -> None:
        for pid, status in reap_children():  # in a container also orphans of other processes
            code = os.waitstatus_to_exitcode(status)
            self._validator.note_exit(pid, code)
            self._controller.note_exit(pid, code)

    async def _reload_on_request(self) -> None:
        """Reload once for all requests that arrive before a reload starts; later ones cause another reload."""
        while True:
            await self._reload_requested.wait()
            self._reload_requested.clear()
            await self._updater.reload()

    def _restart(self, serving_set: ServingSet) -> None:
        self._rollout.begin_with(serving_set)
        self._controller.start_all()

    def _announce(self, layout: WorkerLayout) -> None:
        serving_set = self._rollout.serving_set
        log.info("the default model is %s: %s", serving_set.default, serving_set.why_default)
        address = address_of(self._listener)
        for line in startup_message(os.getpid(), layout, address, self._admin_address, needs_key=self._needs_key):
            log.info("%s", line)

    async def _stop_workers(self) -> None:
        self._readiness.start_draining()
        if not self._shutdown.has_start_failure:
            log.info("stopping: draining accepted requests")
        await self._workers.close()  # a worker that is being forked needs the listener
        self._listener.close()
        await self._shutdown.stop_workers(self._workers, longest_s=self._drain.longest_s + _OWN_END_S)
