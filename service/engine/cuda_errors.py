"""The consequences of a CUDA error, recognised by its text: ONNX Runtime passes on nothing else.

The numbers are those of cudaError_t in the documentation of the CUDA runtime.
"""

import re

# After these every call fails until the process ends: the device is lost, or a kernel has destroyed its context.
_FATAL_NUMBERS = {100, 214, 220, 226, 700, 702, 709, 710, 714, 715, 716, 717, 718, 719, 721, 999}
_NUMBER = re.compile(r"\bcuda (?:failure|error)[ :(]*(\d+)", re.IGNORECASE)
_FATAL_WORDS = re.compile(
    r"illegal memory access|illegal instruction|misaligned address|unspecified launch failure|launch timed out"
    r"|device-side assert|hardware stack error|uncorrectable|context is destroyed|device lost|fallen off the bus"
    r"|cuda_?error_?(?:illegal|launch_?fail|launch_?timeout|misaligned|hardware|ecc|assert|unknown)",
    re.IGNORECASE,
)
_MEMORY_WORDS = re.compile(
    r"out of memory|out_of_memory|outofmemory|failed to allocate memory|available memory of|status_alloc_failed"
    r"|\bcuda (?:failure|error)[ :(]*2\b",
    re.IGNORECASE,
)


def is_fatal(text: str) -> bool:
    """Return whether no call can succeed in this process after this error."""
    return any(int(number) in _FATAL_NUMBERS for number in _NUMBER.findall(text)) or bool(_FATAL_WORDS.search(text))


def is_out_of_memory(text: str) -> bool:
    """Return whether a smaller batch may succeed after this error."""
    return not is_fatal(text) and bool(_MEMORY_WORDS.search(text))
