"""Where pip takes torch from: prints further arguments for pip, and says on stderr which build comes.

    python constraints/torch_wheels.py ADDRESS

ADDRESS is PyTorch's own index of wheels for CPUs, or nothing. It is taken where it answers within a few seconds and
there is no NVIDIA GPU: torch is 200 MB from there, and 3 GB with CUDA. Everywhere else pip decides.
"""

import http.client
import subprocess
import sys
import threading
import urllib.request
from typing import TextIO

_LIMIT_S = 4.0  # for everything, the look-up of the name included
_ENOUGH = 64 * 1024  # of the page: it lists hundreds of wheels


def choose(address: str, log: TextIO) -> list[str]:
    """Return pip's arguments for the index at this address, or none; write one line that says why."""
    if sys.platform != "linux":
        why, arguments = "the usual build has no CUDA on this system", []
    elif has_nvidia_gpu():
        why, arguments = "the usual build, as this machine has an NVIDIA GPU", []
    elif not address:
        why, arguments = "what pip finds, as no index of CPU wheels is named", []
    elif answers(address, _LIMIT_S):
        why, arguments = f"the build for CPUs from {address}", ["--extra-index-url", address]
    else:
        why = (
            f"what pip finds, as {address} cannot be reached within {_LIMIT_S:g} s "
            "(the usual build for Linux brings CUDA: 3 GB to download)"
        )
        arguments = []
    log.write(f"torch: {why}\n")
    return arguments


def has_nvidia_gpu() -> bool:
    """Return whether NVIDIA's driver shows a GPU."""
    try:
        shown = subprocess.run(["nvidia-smi", "-L"], capture_output=True, check=True, timeout=30)  # noqa: S607
    except (OSError, subprocess.SubprocessError):
        return False
    return b"GPU" in shown.stdout


def answers(address: str, limit_s: float) -> bool:
    """Return whether an index answers in time, with wheels of torch: a login page of a network is none."""
    found = threading.Event()

    def look() -> None:
        try:
            with urllib.request.urlopen(f"{address.rstrip('/')}/torch/", timeout=limit_s) as page:  # noqa: S310
                if b"torch-" in page.read(_ENOUGH):
                    found.set()
        except (OSError, ValueError, http.client.HTTPException):
            return

    # A thread that may be left behind, because nothing else limits the look-up of a name.
    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    thread.join(limit_s)
    return found.is_set()


if __name__ == "__main__":
    sys.stdout.write(" ".join(choose("".join(sys.argv[1:]), sys.stderr)))
