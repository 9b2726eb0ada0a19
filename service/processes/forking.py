"""Child processes: forked with a message channel and nothing else open, killed with their parent, and reaped.

Forking lets a child share the listening socket and the load counters; everything else it imports itself.
"""

import contextlib
import ctypes
import logging
import os
import signal
import socket
from collections.abc import Callable, Iterator, Sequence
from typing import NoReturn

from service.processes.channel import MessageChannel
from service.processes.signals import HANDLED, IGNORED_BY_CHILDREN

log = logging.getLogger(__name__)

_PR_SET_PDEATHSIG = 1  # <linux/prctl.h>

ChildMain = Callable[[socket.socket], int]  # gets its end of the channel, returns the exit status


async def fork(main: ChildMain, *kept: socket.socket) -> tuple[int, MessageChannel]:
    """Run `main` in a child process that has no open files but its end of a channel and the `kept` sockets.

    The system kills the child when the calling thread ends. Returns the process id and the parent's end of the channel.
    Raises OSError if the system has no process, file or memory left.
    """
    ours, theirs = socket.socketpair()
    with theirs:
        channel = await MessageChannel.open(ours)
        parent = os.getpid()
        # Until the child has its own wake-up descriptor, a signal to the child would wake the parent's loop.
        signal.pthread_sigmask(signal.SIG_BLOCK, HANDLED)
        try:
            pid = os.fork()
            if pid == 0:
                _run_child(main, parent, theirs, kept)
        except OSError:
            channel.close()
            raise
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, HANDLED)
    return pid, channel


def reap_children() -> Iterator[tuple[int, int]]:
    """Yield process id and wait status of every child that has ended."""
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if pid == 0:
            return
        yield pid, status


def _run_child(main: ChildMain, parent: int, channel: socket.socket, kept: Sequence[socket.socket]) -> NoReturn:
    status = 1
    try:
        _end_with(parent)
        signal.set_wakeup_fd(-1)
        for number in IGNORED_BY_CHILDREN:
            signal.signal(number, signal.SIG_IGN)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        _release_files(channel.fileno(), *(socket.fileno() for socket in kept))
        signal.pthread_sigmask(signal.SIG_UNBLOCK, HANDLED)
        status = main(channel)
    except BaseException:  # the child never returns into the supervisor's code
        log.exception("a process failed")
    finally:
        logging.shutdown()
        os._exit(status)  # the system frees the memory at once; Python's own exit takes up to a second


def _end_with(parent: int) -> None:
    """Have the system kill this process when its parent ends; exit if the parent has ended already."""
    with contextlib.suppress(AttributeError):  # Linux only; elsewhere a worker ends when its channel closes
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def _release_files(*kept: int) -> None:
    """Replace the supervisor's files by /dev/null: closed descriptors would be reused for other files."""
    null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    for name in os.listdir("/proc/self/fd"):
        number = int(name)
        if number > 2 and number not in (*kept, null):
            with contextlib.suppress(OSError):  # the descriptor of the listing itself is closed by now
                os.fstat(number)
                os.dup2(null, number, inheritable=False)
