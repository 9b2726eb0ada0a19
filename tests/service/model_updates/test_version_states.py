"""The states of model versions, and the counts and log lines of their changes."""

from pathlib import Path

import pytest

from service.model_files.repository import ModelFile, ModelRepositoryError, VersionState
from service.model_updates.version_states import Outcome, VersionStates


def file(version: str, name: str = "a") -> ModelFile:
    return ModelFile(name, version, Path("/models") / name / version / "model.onnx", "ab" * 32)


@pytest.fixture
def counts() -> list[Outcome]:
    return []


@pytest.fixture
def states(counts: list[Outcome]) -> VersionStates:
    return VersionStates(counts.append)


def described(states: VersionStates) -> list[str]:
    return [f"{state.name}:{state.version} {state.state} {state.reason}".strip() for state in states.all()]


def test_states_are_listed_by_name_and_number(states: VersionStates) -> None:
    for each in (file("10"), file("9"), file("2", "A")):
        states.set_ready(each)
    assert described(states) == ["A:2 READY", "a:9 READY", "a:10 READY"]


def test_each_change_is_counted_and_logged(
    states: VersionStates, counts: list[Outcome], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    states.set_loading(file("1"))
    states.note_loaded(file("1"))
    states.note_unchanged()
    assert states.note_refused(file("2"), "it is bad", has_predecessor=False) == "a:2 was refused: it is bad."
    states.note_unloaded(file("1"), "unloaded")
    assert counts == ["loaded", "unchanged", "refused", "unloaded"]
    assert caplog.messages == [
        "a:1 serves, sha256 abababababab",
        "a:2 was refused: it is bad.",
        "a:1 was unloaded: unloaded",
    ]
    assert described(states) == ["a:1 UNAVAILABLE unloaded", "a:2 UNAVAILABLE it is bad"]


def test_a_refused_file_leaves_its_predecessor_ready_with_a_reason(states: VersionStates) -> None:
    states.note_refused(file("1"), "it is bad", has_predecessor=True)
    assert described(states) == ["a:1 READY the new file was refused: it is bad; the previous file still serves"]


def test_a_refused_folder_leaves_what_serves_ready_and_its_path_out_of_the_reason(
    states: VersionStates, counts: list[Outcome], caplog: pytest.LogCaptureFixture
) -> None:
    error = ModelRepositoryError("the folder cannot be read", path=Path("/models/a"))
    states.note_refused_folder(error, [file("1"), file("2")])
    reason = "READY the model's folder was refused: the folder cannot be read; this version still serves"
    assert described(states) == [f"a:1 {reason}", f"a:2 {reason}"]
    assert (counts, caplog.messages) == (["refused"], ["/models/a: the folder cannot be read"])


def test_a_reset_counts_only_refusals_that_are_new(states: VersionStates, counts: list[Outcome]) -> None:
    bad, worse = (
        VersionState("a", "2", "UNAVAILABLE", "it is bad"),
        VersionState("a", "2", "UNAVAILABLE", "it is worse"),
    )
    states.reset([VersionState("a", "1", "LOADING"), bad])
    states.reset([bad])
    assert (counts, described(states)) == (["refused"], ["a:2 UNAVAILABLE it is bad"])
    states.reset([worse])
    assert counts == ["refused", "refused"]


def test_other_models_and_other_versions_are_forgotten(states: VersionStates) -> None:
    for each in (file("1"), file("2"), file("1", "b"), file("1", "c")):
        states.set_ready(each)
    states.keep_models({"a", "b"})
    states.keep_versions("a", [file("2"), file("3")])
    assert described(states) == ["a:2 READY", "b:1 READY"]
