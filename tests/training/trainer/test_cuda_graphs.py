"""Recording a computation, with a stand-in for CUDA's graphs that computes anew at each replay."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.training.trainer.test_gradients import HARDWARE, batch, network
from training.augmentation.mixing import Batch
from training.hardware.devices import choose
from training.hardware.process_group import World
from training.trainer.cuda_graphs import CudaGraphStep, Result
from training.trainer.gradients import ParallelGradients


class Graph:
    """Replays what was computed while it recorded, into the same tensors, from the tensors that were read then."""

    recording: "Graph | None" = None

    def __init__(self) -> None:
        self.compute: Callable[[], list[Tensor]] = list
        self.written: list[Tensor] = []
        self.replays = 0

    def replay(self) -> None:
        self.replays += 1
        torch._foreach_copy_(self.written, self.compute())


@contextlib.contextmanager
def recording(graph: Graph) -> Iterator[None]:
    Graph.recording = graph
    try:
        yield
    finally:
        Graph.recording = None


class Stream:
    def wait_stream(self, _other: "Stream") -> None: ...


@pytest.fixture
def graphs(monkeypatch: pytest.MonkeyPatch) -> list[Graph]:
    """Return the graphs that are recorded."""
    made: list[Graph] = []

    def new() -> Graph:
        made.append(Graph())
        return made[-1]

    monkeypatch.setattr(torch.cuda, "Stream", Stream)
    monkeypatch.setattr(torch.cuda, "current_stream", Stream)
    monkeypatch.setattr(torch.cuda, "stream", lambda _stream: contextlib.nullcontext())
    monkeypatch.setattr(torch.cuda, "CUDAGraph", new)
    monkeypatch.setattr(torch.cuda, "graph", recording)
    return made


def recorder(replicas: ParallelGradients) -> CudaGraphStep:
    """Return a recorder of the first replica's gradients that a stand-in graph can replay."""

    def compute(part: Batch, weight: float, label_smoothing: float) -> Result:
        def again() -> list[Tensor]:
            gradients, numbers = replicas._gradients_of_first(part, weight, label_smoothing)
            return [*gradients, numbers]

        if Graph.recording is None:
            *gradients, numbers = again()
            return gradients, numbers
        written = [torch.full_like(tensor, torch.nan) for tensor in replicas._parameters]  # recording computes nothing
        numbers = torch.full((3,), torch.nan)
        Graph.recording.compute, Graph.recording.written = again, [*written, numbers]
        return written, numbers

    return CudaGraphStep(compute, replicas._buffers[0])


def after(batches: list[Batch], graphs: list[Graph] | None, **options: Any) -> tuple[list[Tensor], dict[str, Tensor]]:
    """Return what each batch's loss was, and all weights, statistics and gradients in the end."""
    model = network()
    replicas = ParallelGradients(model, HARDWARE, World())
    if graphs is not None:
        replicas._recorder = recorder(replicas)
    losses = [replicas.compute_gradients(given, whole=len(given.labels), **options) for given in batches]
    gradients = {f"{name}.grad": p.grad for name, p in model.named_parameters() if p.grad is not None}
    return losses, model.state_dict() | gradients


def mixed(share: float) -> Batch:
    plain = batch()
    return Batch(plain.images * (1 + share), plain.labels, plain.labels.flip(0), share)


@pytest.mark.parametrize("micro_batches", [1, 3])
def test_replays_compute_what_the_network_computes(graphs: list[Graph], micro_batches: int) -> None:
    batches = [mixed(0.1), mixed(0.3), mixed(0.0)]
    options = {"micro_batches": micro_batches, "label_smoothing": 0.1}
    losses, state = after(batches, graphs, **options)
    expected_losses, expected = after(batches, None, **options)
    torch.testing.assert_close(losses, expected_losses, rtol=0, atol=0)
    torch.testing.assert_close(state, expected, rtol=0, atol=0)  # the statistics, too: warming up leaves no trace
    assert [graph.replays for graph in graphs] == ([3] if micro_batches == 1 else [3, 6])  # parts of 6, 5 and 5


def test_each_kind_of_batch_has_a_recording_of_its_own(graphs: list[Graph]) -> None:
    after([batch(), mixed(0.2), batch(8), batch()], graphs)
    assert [graph.replays for graph in graphs] == [2, 1, 1]


@pytest.mark.parametrize(
    ("has_gpu", "precision", "recorded", "compiled"),
    [
        (False, "bf16", False, False),
        (True, "bf16", True, False),
        (True, "fp32", True, False),
        (True, "fp16", False, True),
    ],
)
def test_a_gpu_records_its_steps_unless_the_loss_is_scaled(
    monkeypatch: pytest.MonkeyPatch, has_gpu: bool, precision: str, recorded: bool, compiled: bool
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: has_gpu)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "a GPU")
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)  # put back
    hardware = choose(precision, threads=1)
    assert (hardware.recorded, hardware.compiled) == (recorded, compiled)
    assert ("as one CUDA graph" in str(hardware)) is recorded
