"""The device, threads and precision of a training, chosen once at the start and logged in one line.

bfloat16 doubles the speed on processors that have instructions for it and slows down the others, so it is chosen by
asking the processor. The recipe, not the machine, splits a batch into parts (`training.trainer.gradients`). The cores
of a CPU compute parts at the same time, and share each part's layers if there are more cores than parts.
"""

import os
import platform
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import torch

from service.system.cores import available_cores
from training.hardware.malloc import keep_freed_memory


@dataclass(frozen=True, slots=True)
class Hardware:
    """Where and how a run computes. Two runs are bit-equal only if all of this is equal."""

    device: str
    processor: str
    threads: int
    precision: str  # fp32, or bf16 or fp16 (autocast)
    compiled: bool
    deterministic: bool = False  # operations whose results could differ from run to run are refused
    recorded: bool = False  # what is computed of a batch is one CUDA graph

    def autocast(self) -> torch.autocast:
        """Return the context in which the network runs."""
        narrow = torch.float16 if self.precision == "fp16" else torch.bfloat16
        return torch.autocast(self.device, narrow, enabled=self.precision != "fp32")

    @property
    def evaluation_threads(self) -> int:
        """Batches of an evaluation that are computed at the same time, by one thread each."""
        return self.threads if self.device == "cpu" else 1

    def pool(self, parts: int) -> ThreadPoolExecutor:
        """Return the threads that compute `parts` of a batch; each of them may use its share of the cores."""
        # Beside a busy neighbor, threads that share layers fall from 900 to 70 images/s, half batches to 550.
        at_once = min(parts, self.threads) if self.device == "cpu" and not self.compiled else 1
        return ThreadPoolExecutor(at_once, initializer=torch.set_num_threads, initargs=(self.threads // at_once,))

    def facts(self) -> dict[str, Any]:
        """Return what a run records."""
        return {
            "device": self.device,
            "processor": self.processor,
            "threads": self.threads,
            "precision": self.precision,
            "compiled": self.compiled,
            "deterministic": self.deterministic,
            "recorded": self.recorded,
        }

    def __str__(self) -> str:
        compiled = "compiled" if self.compiled else "not compiled"
        threads = f"{self.threads} thread{'' if self.threads == 1 else 's'}"
        recorded = ", as one CUDA graph" if self.recorded else ""
        repeatable = ", deterministic" if self.deterministic else ""
        return f"{self.device} ({self.processor}), {threads}, {self.precision}, {compiled}{recorded}{repeatable}"


def choose(
    precision: str = "auto",
    compiled: str = "auto",
    threads: int | None = None,
    *,
    processes: int = 1,
    deterministic: bool = False,
) -> Hardware:
    """Choose the device, and the precision and compilation where they are `auto`; set PyTorch's threads.

    `processes` share this machine's cores. With `deterministic`, PyTorch refuses operations whose results may differ
    between runs. Without it a GPU may use them; on a CPU these networks have no such operation. A process that computes
    on a CPU keeps the memory that it has allocated.

    Raises ValueError for an unknown precision or compilation, or one that this device does not support.
    """
    device = "cuda" if torch.cuda.is_available() else "cpu"
    _check_choices(precision, compiled, device)
    if deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # needed by cuBLAS for repeatable results
    torch.use_deterministic_algorithms(deterministic)
    cores = threads or max(1, available_cores() // processes)
    if precision == "auto":
        precision = "bf16" if device == "cuda" or _cpu_has_bf16() else "fp32"
    is_recorded = device == "cuda" and precision != "fp16"  # whose loss scale starts anew with each process
    # Compiling gains nothing on CPUs (430 against 410 to 440 images/s), nor with recorded steps (8.7 against 8.6 ms).
    is_compiled = compiled == "on" or (compiled == "auto" and device == "cuda" and not is_recorded)
    torch.set_num_threads(cores if is_compiled else 1)  # of this thread; threads of `Hardware.pool` set their own
    _set_up(device)
    return Hardware(
        device=device,
        processor=torch.cuda.get_device_name() if device == "cuda" else _processor_name(),
        threads=cores,
        precision=precision,
        compiled=is_compiled,
        deterministic=deterministic,
        recorded=is_recorded,
    )


def _check_choices(precision: str, compiled: str, device: str) -> None:
    if precision not in ("auto", "fp32", "bf16", "fp16") or compiled not in ("auto", "on", "off"):
        raise ValueError("--precision is auto, fp32, bf16 or fp16, and --compile is auto, on or off")
    if precision == "fp16" and device == "cpu":
        raise ValueError("--precision fp16 needs a GPU; on a CPU use bf16 or fp32")


def _set_up(device: str) -> None:
    if device == "cpu":
        keep_freed_memory()
    else:
        torch.backends.cudnn.allow_tf32 = False  # fp32 is to mean fp32: evaluations are compared with other machines'


def _cpu_has_bf16() -> bool:
    capabilities = torch.cpu.get_capabilities()
    return any(capabilities.get(name) for name in ("avx512_bf16", "amx_bf16", "bf16"))


def _processor_name() -> str:
    try:
        with open("/proc/cpuinfo") as file:
            names = [line.split(":", 1)[1].strip() for line in file if line.startswith("model name")]
    except OSError:
        names = []
    return names[0] if names else platform.processor() or platform.machine()
