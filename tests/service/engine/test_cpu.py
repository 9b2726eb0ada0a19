"""A model on the CPU: which session runs what, and weights that are there once however many sessions map them."""

import re
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from service.engine import cpu as cpu_sessions
from service.engine.cpu import CpuSessions
from service.engine.onnx_runtime import GRAPH_FILE, WEIGHTS_FILE, EngineError, open_session
from tests.support.model_files.tiny_model import SIDE

IMAGE = np.full((1, SIDE, SIDE, 3), 200, np.uint8)
OUTPUTS = ("probabilities", "top_indices")


class Recorded:
    """A session that says what it was asked, and may wait to be let go."""

    def __init__(self) -> None:
        self.runs = 0
        self.started, self.go_on = threading.Event(), threading.Event()
        self.go_on.set()

    def run(self, outputs: Sequence[str], feeds: Any) -> list[Any]:
        self.runs += 1
        self.started.set()
        assert self.go_on.wait(10)
        return []


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[tuple[dict[str, Any], Recorded]]:
    """Every session that is opened, with its options."""
    sessions: list[tuple[dict[str, Any], Recorded]] = []

    def open_recorded(model: bytes, **options: Any) -> Recorded:
        sessions.append((options, Recorded()))
        return sessions[-1][1]

    monkeypatch.setattr(cpu_sessions, "open_session", open_recorded)
    return sessions


def test_many_share_a_session_of_one_thread_that_sleeps_when_idle(opened: list[Any]) -> None:
    sessions = CpuSessions(b"", exclusive_threads=4)
    sessions.run(IMAGE, OUTPUTS)
    (shared, shared_session), (exclusive, exclusive_session) = opened
    assert shared == {"threads": 1, "spinning": False}
    assert exclusive == {"threads": 4, "spinning": True}
    assert (shared_session.runs, exclusive_session.runs) == (1, 0)


def test_an_image_that_is_alone_gets_all_cores(opened: list[Any]) -> None:
    CpuSessions(b"", exclusive_threads=4).run(IMAGE, OUTPUTS, exclusive=True)
    assert [session.runs for _, session in opened] == [0, 1]


def test_two_that_both_take_themselves_for_alone_do_not_share_the_cores(opened: list[Any]) -> None:
    sessions = CpuSessions(b"", exclusive_threads=4)
    (_, shared), (_, all_cores) = opened
    all_cores.go_on.clear()
    first = threading.Thread(target=sessions.run, args=(IMAGE, OUTPUTS), kwargs={"exclusive": True})
    first.start()
    assert all_cores.started.wait(10)
    sessions.run(IMAGE, OUTPUTS, exclusive=True)
    all_cores.go_on.set()
    first.join(10)
    assert (shared.runs, all_cores.runs) == (1, 1)


@pytest.mark.parametrize("threads", [None, 1])
def test_one_core_needs_one_session(opened: list[Any], threads: int | None) -> None:
    CpuSessions(b"", exclusive_threads=threads).run(IMAGE, OUTPUTS, exclusive=True)
    assert [session.runs for _, session in opened] == [1]


def test_both_sessions_answer_as_the_plain_file_does(model_file: bytes, tmp_path: Path) -> None:
    expected = open_session(model_file).run(list(OUTPUTS), {"images": IMAGE})
    sessions = CpuSessions(model_file, exclusive_threads=2, cache=tmp_path)
    for exclusive in (False, True):
        for found, wanted in zip(sessions.run(IMAGE, OUTPUTS, exclusive=exclusive), expected, strict=True):
            np.testing.assert_allclose(found, wanted, atol=1e-6)
    assert "model_card" in sessions.session.get_modelmeta().custom_metadata_map


def test_weights_are_mapped_from_a_file_beside_the_graph(shipped: bytes, tmp_path: Path) -> None:
    sessions = CpuSessions(shipped, exclusive_threads=2, cache=tmp_path)
    (entry,) = (tmp_path / "graphs").iterdir()
    assert {path.name for path in entry.iterdir()} == {GRAPH_FILE, WEIGHTS_FILE, "digests.json"}
    assert (entry / WEIGHTS_FILE).stat().st_size > 0.9 * len(shipped)
    sessions.run(np.zeros((1, 32, 32, 3), np.uint8), OUTPUTS)
    mapped = re.findall(rf"^.* {re.escape(str(entry / WEIGHTS_FILE))}$", Path("/proc/self/maps").read_text(), re.M)
    assert mapped


def test_the_optimised_graph_is_made_once(model_file: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    CpuSessions(model_file, cache=tmp_path)
    monkeypatch.setattr(cpu_sessions, "_save", lambda model, folder: pytest.fail("it was made a second time"))
    CpuSessions(model_file, cache=tmp_path)


def test_a_damaged_graph_is_made_again_before_anything_reads_it(model_file: bytes, tmp_path: Path) -> None:
    CpuSessions(model_file, cache=tmp_path)
    (graph,) = tmp_path.rglob(GRAPH_FILE)
    content = bytearray(graph.read_bytes())
    content[len(content) // 2] ^= 1
    graph.write_bytes(content)
    CpuSessions(model_file, cache=tmp_path).run(IMAGE, OUTPUTS)
    assert graph.read_bytes() != content


def test_without_a_cache_that_can_be_used_each_session_has_its_own_weights(
    model_file: bytes, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("")
    sessions = CpuSessions(model_file, exclusive_threads=2, cache=tmp_path / "file")
    assert sessions.run(IMAGE, OUTPUTS, exclusive=True)
    (message,) = caplog.messages
    assert message.startswith(f"{tmp_path / 'file'} cannot be used, so each session keeps its own weights")


def test_a_broken_model_is_not_blamed_on_the_cache(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(EngineError, match="truncated or damaged"):
        CpuSessions(b"\x08\x0agarbage", cache=tmp_path)
    assert caplog.messages == []
    assert list((tmp_path / "graphs").iterdir()) == []


def test_a_graph_is_good_for_one_file_and_processor(monkeypatch: pytest.MonkeyPatch) -> None:
    key = cpu_sessions._key(b"model")
    assert key == cpu_sessions._key(b"model") != cpu_sessions._key(b"other model")
    monkeypatch.setattr(cpu_sessions, "processor", lambda: "another processor")
    assert cpu_sessions._key(b"model") != key


@pytest.fixture(scope="module")
def shipped() -> bytes:
    return (Path(__file__).parents[3] / "models" / "cifar10-resnet20" / "1" / "model.onnx").read_bytes()
