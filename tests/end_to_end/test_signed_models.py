"""With `--model-keys` nothing serves but what a key has signed: at the start, at a reload, and by the admin port."""

import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.service.test_main import assert_one_line, run
from tests.support.model_files.signatures import altered, make_key, public_pem, sign, signed_by_another, unsigned
from tests.support.model_files.tiny_model import LABELS, tiny_model, write_tiny_model
from tests.support.servers.served import Served, serving, wait_until

KEY = make_key()


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    path = tmp_path / "keys.pem"
    path.write_bytes(public_pem(KEY))
    return path


@pytest.fixture
def folder(tmp_path: Path, model_file: bytes) -> Path:
    """A folder of models with one that is signed."""
    sign(write_tiny_model(tmp_path / "models", content=model_file), KEY)
    return tmp_path / "models"


FAULTS = [
    (altered, "the file was altered after it was signed"),
    (unsigned, "the file is not signed: there is no model.sig beside it"),
    (signed_by_another, "model.sig was made with a key that --model-keys does not hold"),
]


@pytest.mark.parametrize(("fault", "words"), FAULTS)
def test_a_start_is_refused_with_one_line(folder: Path, keys: Path, fault: Callable[[Path], None], words: str) -> None:
    fault(folder / "tiny" / "1" / "model.onnx")
    result = run("--models", folder, "--model-keys", keys, "--port", 0, "--admin-port", 0, "--processes", 1)
    assert_one_line(result, words)


def test_keys_that_cannot_be_used_fail_the_start_with_one_line(folder: Path, tmp_path: Path) -> None:
    assert_one_line(run("--models", folder, "--model-keys", tmp_path / "none.pem"), "--model-keys cannot be read")
    (tmp_path / "none.pem").write_text("no key")
    assert_one_line(run("--models", folder, "--model-keys", tmp_path / "none.pem"), "public keys in PEM form")


def reload(served: Served) -> None:
    before = served.sample("resnet_reloads_total")
    served.process.send_signal(signal.SIGHUP)
    wait_until(lambda: served.sample("resnet_reloads_total") > before)


def version_of(served: Served, image: bytes) -> str:
    status, document = served.ask("POST", "/classify", image)
    assert status == 200, document
    return str(document["model"]["version"])


def test_a_reload_refuses_each_fault_and_takes_a_version_once_it_is_signed(
    folder: Path, keys: Path, red: bytes
) -> None:
    new = tiny_model(card={"labels": [label.upper() for label in LABELS]})
    with serving(folder, "--model-keys", keys, "--processes", 2) as served:
        path = write_tiny_model(folder, version="2", content=new)
        for fault, words in FAULTS:
            path.write_bytes(new)
            sign(path, KEY)
            fault(path)
            reload(served)
            status, document = served.ask_admin("POST", "/admin/models/tiny/load")
            assert status == 409 and words in document["detail"], document
            assert str(folder) not in document["detail"]
            assert version_of(served, red) == "1"
        path.write_bytes(new)
        sign(path, KEY)
        reload(served)
        assert version_of(served, red) == "2"


def test_a_signature_that_is_taken_away_refuses_the_next_load_of_the_same_file(
    folder: Path, keys: Path, red: bytes
) -> None:
    with serving(folder, "--model-keys", keys, "--processes", 1) as served:
        unsigned(folder / "tiny" / "1" / "model.onnx")
        status, document = served.ask_admin("POST", "/admin/models/tiny/load")
        assert status == 409 and "not signed" in document["detail"], document
        assert version_of(served, red) == "1"  # what serves was signed when it was loaded


def test_without_keys_signatures_are_not_looked_at(folder: Path, red: bytes) -> None:
    (folder / "tiny" / "1" / "model.sig").write_text("nonsense")
    with serving(folder, "--processes", 1) as served:
        assert version_of(served, red) == "1"
