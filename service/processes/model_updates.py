"""New versions while the server runs: tried in a process apart, then loaded by every worker, then swapped in by all.

What is refused at any of these steps leaves everything as it was, and the reason is told wherever models are listed.
One change at a time; the supervisor's loop never waits.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import replace
from typing import Literal

from service.errors import ModelRefused, NotFound, NotReady
from service.model_files.repository import (
    ModelFile,
    ModelRepositoryError,
    ServingSet,
    VersionState,
    check_card_stays,
    check_location,
    is_name,
    model_names,
    versions_of,
    warn_of_what_is_left_out,
)
from service.processes.model_validation import Examine, Repository
from service.processes.worker_handle import WorkerHandle

log = logging.getLogger(__name__)

UNLOADED = "unloaded"  # Triton's word
_GONE = "its folder is gone"

Outcome = Literal["loaded", "unchanged", "refused", "unloaded"]


class ModelUpdater:
    """Owns what serves: the workers are told, and ask for it when they start."""

    def __init__(
        self,
        repository: Repository,
        *,
        examine: Examine,
        workers: Callable[[], list[WorkerHandle]],
        count: Callable[[Outcome], None],
    ) -> None:
        self.lineup = repository.lineup
        self._folder = repository.folder
        self._latest = repository.latest
        self._load_timeout_s = repository.load_timeout_s
        self._examine = examine
        self._workers = workers
        self._count = count
        self._states: dict[tuple[str, str], VersionState] = {}
        self._max_batches: dict[str, int] = {}  # on which the workers agree, by SHA-256
        self._accepted: frozenset[str] = frozenset()  # digests of what serves or has served
        self._unloaded: set[str] = set()  # names that somebody took out; they stay out until somebody loads them
        self._has_started = asyncio.Event()
        self._one_at_a_time, self._handing_out = asyncio.Lock(), asyncio.Lock()
        self.begin_with(self.lineup)

    def begin_with(self, lineup: ServingSet) -> None:
        """Before anything serves: let this line-up serve, and say what was refused of it."""
        for state in lineup.states:
            known = self._states.get((state.name, state.version))
            if state.state == "UNAVAILABLE" and state != known:
                self._refuse(_refusal(state.name, state.version, state.reason))
        self._has_started.clear()
        self.lineup = lineup
        self._states = {(state.name, state.version): state for state in lineup.states}

    async def bring_up_to_date(self, worker: WorkerHandle) -> str | None:
        """Let a worker that has loaded serve what all serve; return why it could not. Cancelled if it ends."""
        async with self._handing_out:
            if not self._has_started.is_set():
                self._start_with(worker.files)
            self._agree({file.sha256: file.max_batch for file in worker.files if file.sha256 and file.max_batch})
            if set(worker.files) == set(self.lineup.files):
                failure = None
            else:
                failure = await worker.prepare(self.lineup.files)
            return failure or await worker.take(self.lineup)

    def _start_with(self, files: tuple[ModelFile, ...]) -> None:
        self._has_started.set()
        self._accepted = frozenset(file.sha256 for file in files if file.sha256)
        for file in files:
            self._note(file, "READY")
        self.lineup = replace(self.lineup, files=files, states=tuple(self._states.values()))

    async def change(self, action: Literal["load", "unload"], name: str) -> list[VersionState]:
        """Load a model's highest versions, or unload it, in every worker; return how they are then.

        Raises NotFound, NotReady, ModelRefused.
        """
        if not self._has_started.is_set():
            raise NotReady("The server is still loading its models; try again soon.", retry_after_s=1)
        async with self._one_at_a_time:
            if not is_name(name):
                raise NotFound("There is no such model in the folder of models.", code="model_not_found")
            await (self._load_by_name(name) if action == "load" else self._unload(name))
        return [state for state in self.lineup.states if state.name == name]

    async def reload(self) -> None:
        """Make what serves follow the folder, but for models that somebody has unloaded."""
        await self._has_started.wait()
        async with self._one_at_a_time:
            try:
                found = {name: self._versions_of(name) for name in model_names(self._folder)}
            except ModelRepositoryError as error:
                log.error("nothing is reloaded: %s", error)
                return
            there = {name for name, files in found.items() if files != []}
            self._forget_what_was_gone(there)
            for name, files in found.items():
                if files and name not in self._unloaded:
                    await self._load(name, files)
            await self._drop_what_is_gone(there)
            await self._tell()
            warn_of_what_is_left_out(self._folder)
        log.info("reloaded; serving %s", ", ".join(f"{file.name}:{file.version}" for file in self.lineup.files))

    def _versions_of(self, name: str) -> list[ModelFile] | None:
        """Return the versions that shall serve; None if they are refused already, and what serves stays."""
        try:
            return versions_of(self._folder, name, self._latest)
        except ModelRepositoryError as error:
            self._refuse_folder(name, error)
            return None

    def _refuse_folder(self, name: str, error: ModelRepositoryError) -> None:
        for file in self.lineup.files:
            if file.name == name:
                self._note(file, "READY", f"what lies there now was refused: {error.reason}; what was there serves")
        self._refuse(str(error))

    async def _load_by_name(self, name: str) -> None:
        try:
            files = versions_of(self._folder, name, self._latest)
        except ModelRepositoryError as error:
            self._refuse_folder(name, error)
            await self._tell()
            raise ModelRefused(f"{name} was refused: {error.reason}.") from None
        if not files:
            raise NotFound("There is no such model in the folder of models.", code="model_not_found")
        self._unloaded.discard(name)
        refusals = await self._load(name, files)
        if refusals:
            raise ModelRefused(" ".join(refusals))

    async def _load(self, name: str, files: list[ModelFile]) -> list[str]:
        """Serve these versions; return what was refused, in sentences."""
        verdicts = [await self._judge(file) for file in files]
        good = [file for file in verdicts if isinstance(file, ModelFile)]
        refusals = [text for text in verdicts if isinstance(text, str)]
        serving = [file for file in self.lineup.files if file.name == name]
        if refusals:  # what they would have replaced stays
            good = sorted({**{f.key: f for f in serving}, **{f.key: f for f in good}}.values(), key=_name_and_number)
        new = [file for file in good[-self._latest :] if file not in serving]
        failure = await self._roll_out(name, good[-self._latest :])
        for file in new:
            refusals += self._note_outcome(file, failure)
        for file in good:
            if file in serving and file in verdicts:
                self._note(file, "READY")
        if not new and not refusals:
            self._count("unchanged")
        self._forget_but(name, files)
        await self._tell()
        return refusals

    async def _judge(self, file: ModelFile) -> ModelFile | str:
        """Return the file, with what was found in it, if it may be loaded, else why not."""
        if file.key not in {serving.key for serving in self.lineup.files}:
            self._note(file, "LOADING")
            await self._tell()
        try:
            check_location(self._folder, file)
            found = await self._examine(file, self._accepted)
            check_card_stays(found, self.lineup.files)
            return found
        except ModelRepositoryError as error:
            return self._note_refusal(file, error.reason)

    def _note_outcome(self, file: ModelFile, failure: str | None) -> list[str]:
        if failure is not None:
            return [self._note_refusal(file, failure)]
        self._accepted |= {file.sha256 or ""}
        self._note(file, "READY")
        self._count("loaded")
        log.info("%s:%s serves, sha256 %s", file.name, file.version, (file.sha256 or "")[:12])
        return []

    def _note_refusal(self, file: ModelFile, reason: str) -> str:
        """Return the refusal as a sentence."""
        serves = any(serving.key == file.key for serving in self.lineup.files)
        if serves:
            self._note(file, "READY", f"the file that lies there now was refused: {reason}; the one before it serves")
        else:
            self._note(file, "UNAVAILABLE", reason)
        sentence = _refusal(file.name, file.version, reason)
        self._refuse(sentence)
        return sentence

    def _refuse(self, text: str) -> None:
        log.error("%s", text)
        self._count("refused")

    async def _unload(self, name: str) -> None:
        files = [file for file in self.lineup.files if file.name == name]
        if not files and name not in self._unloaded:
            raise NotFound("No model of this name serves.", code="model_not_found")
        self._unloaded.add(name)
        if files:
            await self._take_out(name, files, UNLOADED)

    async def _drop_what_is_gone(self, found: set[str]) -> None:
        for name in sorted({file.name for file in self.lineup.files} - found):
            if name == self.lineup.default:
                log.error("%s is gone from %s; as the default it goes on serving", name, self._folder)
            else:
                await self._take_out(name, [file for file in self.lineup.files if file.name == name], _GONE)

    def _forget_what_was_gone(self, found: set[str]) -> None:
        """Nothing is left to say of a model that has no folder and does not serve."""
        known = found | self._unloaded | {file.name for file in self.lineup.files}
        self._states = {key: state for key, state in self._states.items() if key[0] in known}

    async def _take_out(self, name: str, files: list[ModelFile], reason: str) -> None:
        await self._roll_out(name, [])
        for file in files:
            self._note(file, "UNAVAILABLE", reason)
            self._count("unloaded")
            log.info("%s:%s serves no more: %s", file.name, file.version, reason)
        await self._tell()

    async def _roll_out(self, name: str, files: list[ModelFile]) -> str | None:
        """Let every worker load what is new, then all serve it; return why one could not, and then none does."""
        async with self._handing_out:
            others = [file for file in self.lineup.files if file.name != name]
            wanted = replace(self.lineup, files=tuple(sorted([*others, *files], key=_name_and_number)))
            new = tuple(file for file in wanted.files if file not in self.lineup.files)
            failure = await self._ask_all(lambda worker: worker.prepare(new)) if new else None
            if failure is None:
                self.lineup = wanted
                self._agree({sha256: most for worker in self._workers() for sha256, most in worker.max_batches.items()})
            await self._let_all_take()
            return failure

    def _agree(self, max_batches: dict[str, int]) -> None:
        """Let all workers form batches of the size that the first one measured."""
        self._max_batches = max_batches | self._max_batches
        files = (replace(file, max_batch=self._max_batches.get(file.sha256 or "")) for file in self.lineup.files)
        self.lineup = replace(self.lineup, files=tuple(files))

    async def _ask_all(self, ask: Callable[[WorkerHandle], Awaitable[str | None]]) -> str | None:
        """Return the first failure. Who does not answer in time is killed, and starts again with what serves then."""
        asked = {asyncio.ensure_future(ask(worker)): worker for worker in self._workers() if worker.is_loaded}
        if not asked:
            return None
        done, late = await asyncio.wait(asked, timeout=self._load_timeout_s)
        for answer in late:
            answer.cancel()
            asked[answer].killed_because = "it did not load a model in time"
            asked[answer].kill()
        failures = [failure for answer in done if not answer.cancelled() and (failure := answer.result())]
        return failures[0] if failures else ("a process did not load it in time" if late else None)

    async def _tell(self) -> None:
        """Let the workers know the states."""
        async with self._handing_out:
            self.lineup = replace(self.lineup, states=tuple(sorted(self._states.values(), key=_name_and_number)))
            await self._let_all_take()

    async def _let_all_take(self) -> None:
        failure = await self._ask_all(lambda worker: worker.take(self.lineup))
        if failure is not None:
            log.error("a process does not serve what it should: %s", failure)

    def _note(self, file: ModelFile, state: Literal["LOADING", "READY", "UNAVAILABLE"], reason: str = "") -> None:
        self._states[file.key] = VersionState(file.name, file.version, state, reason)

    def _forget_but(self, name: str, files: Iterable[ModelFile]) -> None:
        """Keep the states of a model's versions that are in the folder or serve."""
        kept = {file.key for file in (*files, *self.lineup.files)}
        self._states = {key: state for key, state in self._states.items() if key[0] != name or key in kept}


def _name_and_number(version: ModelFile | VersionState) -> tuple[str, int]:
    return version.name, int(version.version)


def _refusal(name: str, version: str, reason: str) -> str:
    return f"{name}:{version} was refused: {reason}."
