"""The allocator of a process that loads models again and again."""

import platform
import subprocess
import sys

import pytest

from tests.support.servers.served import ROOT

# Eight threads that allocate at the same time; glibc itself says in how many arenas.
COUNT_ARENAS = """
import ctypes, sys, threading
from service.system.malloc import limit_arenas

limit_arenas()
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.fopen.restype = ctypes.c_void_p, ctypes.c_void_p
together = threading.Barrier(8)

def allocate():
    for _ in range(3):
        together.wait()
        libc.malloc(100_000)

threads = [threading.Thread(target=allocate) for _ in range(8)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
file = ctypes.c_void_p(libc.fopen(sys.argv[1].encode(), b"w"))
libc.malloc_info(0, file)
libc.fclose(file)
print(open(sys.argv[1]).read().count("<heap nr="))
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="there are arenas in glibc only")
@pytest.mark.parametrize(("environment", "arenas"), [({}, {1, 2}), ({"MALLOC_ARENA_MAX": "6"}, {3, 4, 5, 6})])
def test_threads_share_two_arenas_unless_an_operator_says_otherwise(
    tmp_path: object, environment: dict[str, str], arenas: set[int]
) -> None:
    counted = subprocess.run(
        [sys.executable, "-c", COUNT_ARENAS, f"{tmp_path}/info.xml"],
        cwd=ROOT,
        env={"PATH": "", **environment},
        capture_output=True,
        text=True,
        check=True,
    )
    assert int(counted.stdout) in arenas
