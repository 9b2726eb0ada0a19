"""Memory that is free and should be the system's again: the allocator keeps it, for work that does not come.

glibc gives threads that allocate at the same time arenas of their own, up to eight a core, and what is freed in one
is of no use to the others. Each model is loaded by a new thread, so every reload would leave pages in another arena.
"""

import contextlib
import ctypes
import os

_M_ARENA_MAX = -8  # glibc's malloc.h
_ARENAS = 2
_SET_BY_THE_OPERATOR = "MALLOC_ARENA_MAX"


def limit_arenas() -> None:
    """Let all threads of this process share two arenas, unless the environment says how many.

    To be called while there is one thread. Where there is no glibc, it does nothing.
    """
    if _SET_BY_THE_OPERATOR not in os.environ:
        with contextlib.suppress(AttributeError):
            ctypes.CDLL(None).mallopt(_M_ARENA_MAX, _ARENAS)


def trim() -> None:
    """Return what the allocator keeps; where there is no glibc, do nothing. Takes some milliseconds."""
    with contextlib.suppress(AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
