"""`export-onnx --sign` and `check --model-keys`, held against the library and the tool of OpenSSF Model Signing."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, PrivateFormat
from typer.testing import CliRunner

import export.verification.check
from export.cli import main
from export.signing import PASSWORD
from service.model_files.signature import check_signature
from tests.support.model_files.signatures import altered, make_key, private_pem, public_pem, signed_by_another, unsigned

pytest.importorskip("model_signing", reason="the extra sign is not installed")

KEY = make_key()


@pytest.fixture(autouse=True)
def short_timing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export.verification.check, "_TIMED_S", 1e-9)  # one run of each batch


@pytest.fixture
def key(tmp_path: Path) -> Path:
    (tmp_path / "key.pem").write_bytes(private_pem(KEY))
    return tmp_path / "key.pem"


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    (tmp_path / "keys.pem").write_bytes(public_pem(KEY))
    return tmp_path / "keys.pem"


def export_onnx(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def exported(folder: Path, *options: object) -> Path:
    (folder / "labels.txt").write_text("blue\ngreen\nred\n")
    file = folder / "tiny" / "1" / "model.onnx"
    random = ("--depth", 8, "--weights", "random", "--labels", folder / "labels.txt", "--output", file)
    result = export_onnx(*random, *options)
    assert result.exit_code == 0, result.output
    return file


def model_signing(*arguments: object) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "model_signing", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


FAULTS = [
    (altered, "the file was altered after it was signed; copy it again, or export and sign it again"),
    (unsigned, "the file is not signed: there is no model.sig beside it; sign it with export-onnx --sign"),
    (signed_by_another, "model.sig was made with a key that --model-keys does not hold; add the key, or sign it again"),
]


def test_a_signed_export_is_verified_by_check_and_by_the_tool(tmp_path: Path, key: Path, keys: Path) -> None:
    file = exported(tmp_path, "--sign", key)
    assert sorted(path.name for path in file.parent.iterdir()) == ["model.onnx", "model.sig"]
    result = export_onnx("check", file, "--model-keys", keys)
    assert result.exit_code == 0 and "signature" in result.stdout, result.output
    verify = ("verify", "key", file, "--signature", file.with_suffix(".sig"), "--public_key", keys)
    assert model_signing(*verify).returncode == 0
    altered(file)
    assert model_signing(*verify).returncode != 0


@pytest.mark.parametrize("signed", ["file", "folder"])
def test_what_the_tool_signs_is_accepted(tmp_path: Path, key: Path, keys: Path, signed: str) -> None:
    file = tmp_path / "tiny" / "1" / "model.onnx"
    file.parent.mkdir(parents=True)
    file.write_bytes(b"a model")
    target = file if signed == "file" else file.parent
    done = model_signing("sign", "key", target, "--signature", file.with_suffix(".sig"), "--private_key", key)
    assert done.returncode == 0, done.stderr
    check_signature(file, file.read_bytes(), keys)


def test_check_refuses_each_fault_with_one_line(tmp_path: Path, key: Path, keys: Path) -> None:
    file = exported(tmp_path, "--sign", key)
    content, signature = file.read_bytes(), file.with_suffix(".sig").read_bytes()
    for fault, words in FAULTS:
        file.write_bytes(content)
        file.with_suffix(".sig").write_bytes(signature)
        fault(file)
        result = export_onnx("check", file, "--model-keys", keys)
        assert (result.exit_code, result.stdout) == (1, "")
        assert result.stderr == f"export-onnx: {file}: {words}\n"


def test_the_next_version_appears_with_its_signature(
    tmp_path: Path, key: Path, keys: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "labels.txt").write_text("blue\ngreen\nred\n")
    result = export_onnx("--depth", 8, "--weights", "random", "--labels", "labels.txt", "--sign", key)
    assert result.exit_code == 0, result.output
    (file,) = tmp_path.glob("models/*/1/model.onnx")
    check_signature(file, file.read_bytes(), keys)


def test_an_encrypted_key_signs_with_its_password_only(
    tmp_path: Path, key: Path, keys: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    locked = KEY.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"sesame"))
    key.write_bytes(locked)
    refused = export_onnx("--depth", 8, "--weights", "random", "--sign", key)
    assert refused.stderr == f"export-onnx: the key of --sign is encrypted; set {PASSWORD}\n"
    monkeypatch.setenv(PASSWORD, "sesame")
    file = exported(tmp_path, "--sign", key)
    check_signature(file, file.read_bytes(), keys)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "cannot be read"),
        (b"", "is no private key that can sign"),
        (public_pem(KEY), "is no private key that can sign"),
        (private_pem(make_key(ec.SECP256K1())), "is no private key that can sign"),
    ],
)
def test_a_key_that_cannot_sign_is_refused_before_anything_is_converted(
    tmp_path: Path, content: bytes | None, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def convert(*_: object, **__: object) -> None:
        raise AssertionError("the network was converted")

    make: Callable[..., None] = convert
    monkeypatch.setattr("export.export.export", make)
    if content is not None:
        (tmp_path / "key.pem").write_bytes(content)
    result = export_onnx("--depth", 8, "--weights", "random", "--sign", tmp_path / "key.pem")
    assert result.exit_code == 1 and words in result.stderr, result.output
