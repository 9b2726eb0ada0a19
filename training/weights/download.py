"""One file over HTTP, whole and verified under its name, or not there at all.

The received part is beside it as a hidden `.partial`, which is locked while a process works on it: a second
process waits and then finds the file. After a cut, or in a later run, only the rest is requested, on the condition
that the file is still the same where its server gives versions a name. What has not the expected digest is removed,
after one try anew if it was put together from several answers.
"""

import contextlib
import errno
import fcntl
import hashlib
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TimeRemainingColumn, TransferSpeedColumn

from training.weights.checkpoint import flush, sha256_of
from training.weights.http_get import Answer, CutOff, Unreachable, get

_TOTAL_TIMEOUT_S = 3600.0  # of one file, all tries together
_TRIES = 5  # each one continues after the last received byte


class DownloadError(Exception):
    """The download has failed, or the file is another one. The message is one line."""


@dataclass(frozen=True, slots=True)
class _Target:
    url: str
    digest: str
    largest: int  # bytes
    ends_at: float  # monotonic seconds
    log: Callable[[str], None]

    @property
    def host(self) -> str:
        return urlsplit(self.url).hostname or self.url


def download(url: str, path: Path, *, digest: str, largest: int, log: Callable[[str], None]) -> None:
    """Make `path` the file at `url`, or do nothing if it is that file already.

    `digest` is the sha256's first hex digits, or all of them; `largest` is in bytes. Raises DownloadError.
    """
    target = _Target(url, digest, largest, time.monotonic() + _TOTAL_TIMEOUT_S, log)
    try:
        if _is_there(path, target):
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        with _locked_partial(path, log) as partial:
            if _is_there(path, target):  # downloaded by the process that had the lock
                partial.remove()
                return
            _fill(partial, target)
            partial.finish()
    except OSError as error:
        raise DownloadError(f"cannot write {path}: {os.strerror(error.errno or errno.EIO)}") from None


class _Partial:
    """The received part of a file, open for appending, and the version that it belongs to."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.working = path.with_name(f".{path.name}.partial")
        self._version_file = path.with_name(f".{path.name}.version")
        self._file = self.working.open("ab")

    def __len__(self) -> int:
        return os.fstat(self._file.fileno()).st_size

    @property
    def version(self) -> str | None:
        try:
            return self._version_file.read_text() or None
        except FileNotFoundError:
            return None

    def lock(self, log: Callable[[str], None]) -> bool:
        """Wait for the file to be free, and return whether it is still the one in the folder."""
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            log(f"another process is fetching {self.path.name}; waiting for it")
            fcntl.flock(self._file, fcntl.LOCK_EX)
        try:
            return os.path.samestat(os.fstat(self._file.fileno()), self.working.stat())
        except FileNotFoundError:
            return False

    def start_over(self, version: str | None) -> None:
        self._file.truncate(0)
        self._version_file.write_text(version or "")

    def append(self, chunk: bytes) -> None:
        self._file.write(chunk)

    def flush(self) -> None:
        self._file.flush()

    def remove(self) -> None:
        self.working.unlink()
        self._version_file.unlink(missing_ok=True)

    def finish(self) -> None:
        os.fsync(self._file.fileno())
        self._version_file.unlink(missing_ok=True)
        self.working.replace(self.path)
        flush(self.path.parent)

    def close(self) -> None:
        self._file.close()


@contextlib.contextmanager
def _locked_partial(path: Path, log: Callable[[str], None]) -> Iterator[_Partial]:
    while True:
        with contextlib.closing(_Partial(path)) as partial:
            if partial.lock(log):  # else another process has finished it, or removed it
                yield partial
                return


def _is_there(path: Path, target: _Target) -> bool:
    if not path.is_file():
        return False
    found = sha256_of(path)
    if found.startswith(target.digest):
        return True
    target.log(f"{path} has the sha256 {found}, not {_stated(target)}, and is removed")
    path.unlink(missing_ok=True)
    return False


def _stated(target: _Target) -> str:
    return target.digest if len(target.digest) == hashlib.sha256().digest_size * 2 else f"{target.digest}…"


def _fill(partial: _Partial, target: _Target) -> None:
    """Complete the partial file and verify it. Raises DownloadError, after removing a wrong file."""
    is_pieced = _fetch(partial, target)
    found = sha256_of(partial.working)
    if is_pieced and not found.startswith(target.digest):
        target.log("the parts do not make the right file; fetching it whole")
        partial.start_over(None)
        _fetch(partial, target)
        found = sha256_of(partial.working)
    if not found.startswith(target.digest):
        partial.remove()
        raise DownloadError(f"what {target.host} sent has the sha256 {found}, not {_stated(target)}, and is removed")


def _fetch(partial: _Partial, target: _Target) -> bool:
    """Return whether the file was put together from several answers. Raises DownloadError."""
    is_pieced = False
    for try_number in range(1, _TRIES + 1):
        before = len(partial)
        try:
            return _fetch_rest(partial, target) or is_pieced
        except Unreachable as reason:
            raise DownloadError(f"cannot fetch {target.url}: {reason}") from None
        except CutOff:
            kept = len(partial)
            if kept == before or try_number == _TRIES or time.monotonic() > target.ends_at:
                break
            target.log(f"cut off after {kept:,} bytes; continuing from there")
            is_pieced = True
    raise DownloadError(
        f"{target.host} cut the connection after {len(partial):,} bytes, which are kept for the next run"
    )


def _fetch_rest(partial: _Partial, target: _Target) -> bool:
    """Append one response; return whether the file had a part before it. Raises CutOff, Unreachable, DownloadError."""
    with contextlib.closing(get(target.url, len(partial), partial.version)) as answer:
        if answer.start == 0:
            partial.start_over(answer.version)
        _refuse_more(answer.total or 0, partial, target)
        size = "" if answer.total is None else f" ({answer.total / 1e6:,.1f} MB)"
        target.log(f"fetching {target.url}{size}")
        try:
            for chunk in _with_a_bar(answer, target):
                partial.append(chunk)
                _refuse_more(len(partial), partial, target)
        finally:
            partial.flush()
        return answer.start > 0


def _refuse_more(size: int, partial: _Partial, target: _Target) -> None:
    if size > target.largest:
        partial.remove()
        raise DownloadError(f"{target.host} sends more than {target.largest:,} bytes, which cannot be the right file")


def _with_a_bar(answer: Answer, target: _Target) -> Iterator[bytes]:
    terminal = Console(stderr=True)
    columns = (DownloadColumn(), BarColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=terminal, transient=True, disable=not terminal.is_terminal) as bar:
        task = bar.add_task("", total=answer.total, completed=answer.start)
        for chunk in answer.chunks(target.ends_at):
            bar.advance(task, len(chunk))
            yield chunk
