"""Runs are found, read and refused, each refusal with one line that says what to do."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from export.errors import ExportError
from export.sources.network_spec import NetworkSpec
from export.sources.trained import NoRun, find_run, find_shipped, from_run, read_labels
from tests.export.conftest import Trained, copy_run
from tests.support.runs.shipped import write_shipped
from training.runs import shipped
from training.weights.checkpoint import find_weights, read_weights, sha256_of


def change_run(run: Path, **facts: Any) -> None:
    file = run / "run.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | facts))


def test_a_run_says_all_that_its_card_needs(trained: Trained) -> None:
    source = from_run(trained.run, NetworkSpec(), None)
    weights = read_weights(find_weights(trained.run))
    assert source.name == "colours-resnet20"
    assert source.labels == ("blue", "green", "red")
    assert (source.recipe, source.seed, source.dataset) == ("modern-resnet20", 0, "colours")
    assert source.checkpoint_sha256 == sha256_of(find_weights(trained.run))
    assert source.train_set is not None and source.train_set.source == trained.train_set
    assert source.test_set is not None and source.test_set.source == trained.test_set
    assert len(source.held_out) == 12
    assert not source.network.training
    assert torch.equal(source.network.fc.weight, weights["fc.weight"])


def test_a_checkpoint_or_a_weights_file_inside_a_run_is_as_good(trained: Trained) -> None:
    weights = find_weights(trained.run)
    for path in (weights, weights.parent):
        assert from_run(path, NetworkSpec(20), None).checkpoint_sha256 == sha256_of(weights)


def test_a_committed_result_has_its_weights_beside_its_run_file(trained: Trained, tmp_path: Path) -> None:
    result = tmp_path / "results" / "colours"
    result.mkdir(parents=True)
    shutil.copy(trained.run / "run.json", result)
    shutil.copy(find_weights(trained.run), result / "weights.safetensors")
    assert from_run(result, NetworkSpec(), None).labels == ("blue", "green", "red")


@pytest.mark.parametrize(
    "choice", [NetworkSpec(56), NetworkSpec(plain=True), NetworkSpec(20, shortcut="C"), NetworkSpec(stride_in="1x1")]
)
def test_a_contradiction_is_an_error_that_names_both(trained: Trained, choice: NetworkSpec) -> None:
    with pytest.raises(ExportError, match=r"is .*, the run's network .*Leave the option out"):
        from_run(trained.run, choice, None)


def test_other_labels_than_the_runs_are_a_contradiction(trained: Trained) -> None:
    with pytest.raises(ExportError, match="--labels names 2 classes that are not the run's 3"):
        from_run(trained.run, NetworkSpec(), ["blue", "green"])
    with pytest.raises(ExportError, match="--labels"):
        from_run(trained.run, NetworkSpec(), ["green", "blue", "red"])
    assert from_run(trained.run, NetworkSpec(), ["blue", "green", "red"]).labels == ("blue", "green", "red")


def test_weights_of_another_network_are_refused(trained: Trained, tmp_path: Path) -> None:
    run = copy_run(trained, tmp_path / "run")
    change_run(run, network="resnet32")
    with pytest.raises(ExportError, match=r"not the weights of resnet32.*give another --checkpoint"):
        from_run(run, NetworkSpec(), None)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"network": "vgg19"}, "no network is called 'vgg19'"),
        ({"labels": None}, "at labels"),
        ({"labels": ["only"]}, "at labels"),
        ({"preprocessing": {"shorter_side": 32}}, "at preprocessing.crop"),
    ],
)
def test_a_damaged_run_file_is_refused_with_the_place(
    trained: Trained, tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    run = copy_run(trained, tmp_path / "run")
    change_run(run, **change)
    with pytest.raises(ExportError, match=re.escape(message)):
        from_run(run, NetworkSpec(), None)


def test_a_run_file_that_is_not_json_is_refused(trained: Trained, tmp_path: Path) -> None:
    run = copy_run(trained, tmp_path / "run")
    (run / "run.json").write_bytes(b"\xff{")
    with pytest.raises(ExportError, match="is not what train-resnet run writes"):
        from_run(run, NetworkSpec(), None)


def test_damaged_weights_are_refused(trained: Trained, tmp_path: Path) -> None:
    run = copy_run(trained, tmp_path / "run")
    weights = find_weights(run)
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(ExportError, match="is not a readable safetensors file; give another file"):
        from_run(weights, NetworkSpec(), None)


def test_a_path_without_a_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=r"there is no .*absent; give --checkpoint"):
        from_run(tmp_path / "absent", NetworkSpec(), None)
    with pytest.raises(ExportError, match=r"belongs to no run: no run\.json in it or above it"):
        from_run(tmp_path, NetworkSpec(), None)


def found(choice: NetworkSpec) -> Path:
    return find_run(choice, lambda _line: None)


def test_without_any_run_one_line_says_what_to_do() -> None:
    with pytest.raises(NoRun) as refused:
        found(NetworkSpec(20))
    message = str(refused.value)
    assert "\n" not in message
    assert all(word in message for word in ("depth 20", "train-resnet run", "--checkpoint", "--weights random"))


def test_the_fitting_run_is_found_whatever_else_lies_there(trained: Trained) -> None:
    Path("runs").mkdir()
    copy_run(trained, Path("runs/mine"))
    other = copy_run(trained, Path("runs/deeper"))
    change_run(other, network="resnet56")
    without_weights = copy_run(trained, Path("runs/without-weights"))
    shutil.rmtree(without_weights / "checkpoints")
    Path("runs/broken").mkdir()
    Path("runs/broken/run.json").write_text("{")
    assert found(NetworkSpec(20)) == Path("runs/mine")
    assert found(NetworkSpec(56)) == Path("runs/deeper")
    with pytest.raises(NoRun, match="no finished run fits depth 20, variant plain"):
        found(NetworkSpec(20, plain=True))


def test_of_several_fitting_runs_the_one_that_finished_last_is_taken(trained: Trained) -> None:
    for name, finished in (("b", "2026-03-01"), ("a", "2026-04-01"), ("c", "2026-02-01"), ("d", None)):
        change_run(copy_run(trained, Path("runs") / name), finished=finished)
    said: list[str] = []
    assert find_run(NetworkSpec(20), said.append) == Path("runs/a")
    assert said == [
        "runs/d is unfinished and ignored; --checkpoint runs/d exports it as it is",
        "runs/a is your newest finished run of depth 20; older: runs/c, runs/b",
    ]


def test_a_shipped_run_gives_its_name_to_the_model(
    trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shipped, "RESULTS", tmp_path / "results")
    run = copy_run(trained, tmp_path / "results" / "everyday-resnet20")
    assert from_run(run, NetworkSpec(), None).name == "everyday-resnet20"
    assert from_run(find_weights(run), NetworkSpec(), None).name == "everyday-resnet20"
    assert from_run(copy_run(trained, tmp_path / "everyday-resnet20"), NetworkSpec(), None).name == "colours-resnet20"


def test_several_shipped_runs_are_listed_where_no_depth_is_given(
    trained: Trained, monkeypatch: pytest.MonkeyPatch
) -> None:
    results = Path.cwd() / "training" / "results"
    monkeypatch.setattr(shipped, "RESULTS", results)
    for name, network in (("one", "resnet8"), ("two", "resnet14")):
        write_shipped(results, name, network)
    assert find_shipped(NetworkSpec(14)).name == "two"
    with pytest.raises(ExportError, match="choose one with --checkpoint: training/results/one, training/results/two"):
        find_shipped(NetworkSpec())


@pytest.mark.parametrize(
    ("name", "expected"),
    [("Möbel & Co", "m-bel-co-resnet20"), ("...", "images-resnet20"), ("x" * 100, "x" * 55 + "-resnet20")],
)
def test_a_model_is_named_so_that_the_service_takes_it(
    trained: Trained, tmp_path: Path, name: str, expected: str
) -> None:
    run = copy_run(trained, tmp_path / "run")
    dataset = json.loads((run / "run.json").read_text())["dataset"]
    change_run(run, dataset=dataset | {"name": name})
    found = from_run(run, NetworkSpec(), None).name
    assert found == expected
    assert re.fullmatch(r"[a-z0-9][a-z0-9._-]{0,63}", found)


def test_labels_are_lines_of_a_text_file(tmp_path: Path) -> None:
    (tmp_path / "labels.txt").write_bytes("\ufeffcat\r\n  big dog \r\n\r\n".encode())
    assert read_labels(tmp_path / "labels.txt") == ("cat", "big dog")


@pytest.mark.parametrize("content", [b"", b"cat\n", b"cat\n\ndog\n", b"\xff\xfe\x00"])
def test_a_file_without_labels_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "labels.txt").write_bytes(content)
    with pytest.raises(ExportError, match=r"labels\.txt"):
        read_labels(tmp_path / "labels.txt")
    with pytest.raises(ExportError, match="cannot be read"):
        read_labels(tmp_path / "absent.txt")


def test_a_class_that_is_named_twice_is_refused(tmp_path: Path) -> None:
    (tmp_path / "labels.txt").write_text("cat\ndog\ncat\n")
    with pytest.raises(ExportError, match="names 'cat' twice"):
        read_labels(tmp_path / "labels.txt")
