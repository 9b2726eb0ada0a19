"""A signature counts only if an accepted key made it, for exactly these bytes."""

import base64
import json
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from service.inference import registry
from service.model_files.repository import ModelFile, ModelRepositoryError
from service.model_files.signature import BadModelKeys, SignatureRefused, check_signature, read_model_keys
from tests.support.model_files.signatures import bundle, make_key, public_pem, sign, statement

CONTENT = b"the bytes of a model"
KEY, OTHER = make_key(), make_key()


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "model.onnx"
    path.write_bytes(CONTENT)
    sign(path, KEY)
    return path


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    path = tmp_path / "keys.pem"
    path.write_bytes(public_pem(KEY))
    return path


def refusal(model: Path, keys: Path) -> str:
    with pytest.raises(SignatureRefused) as caught:
        check_signature(model, model.read_bytes(), keys)
    assert str(model.parent) not in str(caught.value)
    return str(caught.value)


def write_signature(model: Path, document: Any) -> None:
    model.with_suffix(".sig").write_text(document if isinstance(document, str) else json.dumps(document))


@pytest.mark.parametrize("curve", [ec.SECP256R1(), ec.SECP384R1(), ec.SECP521R1()])
def test_a_signature_by_any_of_the_keys_is_accepted(model: Path, keys: Path, curve: ec.EllipticCurve) -> None:
    key = make_key(curve)
    sign(model, key)
    keys.write_bytes(public_pem(OTHER, key))
    check_signature(model, CONTENT, keys)


def test_a_folder_that_was_signed_covers_the_model_in_it(model: Path, keys: Path) -> None:
    write_signature(model, bundle(statement(CONTENT, name="model.onnx"), KEY))
    check_signature(model, CONTENT, keys)
    write_signature(model, bundle(statement(CONTENT, name="other.onnx"), KEY))
    assert "does not cover model.onnx" in refusal(model, keys)


@pytest.mark.parametrize("position", [0, len(CONTENT) // 2, len(CONTENT) - 1])
def test_an_altered_byte_is_refused(model: Path, keys: Path, position: int) -> None:
    content = bytearray(CONTENT)
    content[position] ^= 1
    model.write_bytes(content)
    assert refusal(model, keys) == (
        "the file was altered after it was signed; copy it again, or export and sign it again"
    )


def test_a_missing_signature_is_refused(model: Path, keys: Path) -> None:
    model.with_suffix(".sig").unlink()
    assert refusal(model, keys) == (
        "the file is not signed: there is no model.sig beside it; sign it with export-onnx --sign"
    )


def test_a_wrong_key_is_refused(model: Path, keys: Path) -> None:
    keys.write_bytes(public_pem(OTHER))
    assert refusal(model, keys) == (
        "model.sig was made with a key that --model-keys does not hold; add the key, or sign it again"
    )


def test_a_payload_that_was_exchanged_is_refused_whichever_key_the_hint_names(model: Path, keys: Path) -> None:
    document = json.loads(model.with_suffix(".sig").read_text())
    model.write_bytes(b"the bytes of another model")
    document["dsseEnvelope"]["payload"] = base64.b64encode(json.dumps(statement(model.read_bytes())).encode()).decode()
    write_signature(model, document)
    assert refusal(model, keys).startswith("model.sig was altered")


@pytest.mark.parametrize(
    "document",
    [
        "",
        "[]",
        "null",
        "[" * 100_000,
        "x" * 2_000_000,
        bundle(statement(CONTENT), KEY, payload="not base64!"),
        bundle(statement(CONTENT), KEY, payloadType="text/plain"),
        bundle(statement(CONTENT), KEY, signatures=[]),
        bundle(statement(CONTENT), KEY, signatures=[{"sig": 1}]),
        bundle(statement(CONTENT), KEY) | {"mediaType": "application/json"},
        bundle({**statement(CONTENT), "predicateType": "https://model_signing/Digests/v0.1"}, KEY),
        bundle({**statement(CONTENT), "_type": "other"}, KEY),
        bundle(statement(CONTENT, serialization={"method": "shards"}), KEY),
        bundle(statement(CONTENT, resources=[{"name": "."}]), KEY),
    ],
)
def test_anything_but_a_model_signature_is_refused(model: Path, keys: Path, document: Any) -> None:
    write_signature(model, document)
    assert refusal(model, keys) == "model.sig is no OpenSSF model signature of version 1.0; sign the file again"


def test_a_digest_that_is_not_known_is_refused_by_its_name(model: Path, keys: Path) -> None:
    resources = [{"name": ".", "algorithm": "blake3", "digest": "00"}]
    write_signature(model, bundle(statement(CONTENT, resources=resources), KEY))
    assert refusal(model, keys) == "it is signed by its 'blake3' digest; sign it with sha256"


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff",
        b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n",
        ed25519.Ed25519PrivateKey.generate().public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo),
        public_pem(make_key(ec.SECP256K1())),
        public_pem(KEY) + public_pem(make_key(ec.SECP256K1())),
    ],
)
def test_keys_of_other_kinds_are_refused_in_one_line(keys: Path, content: bytes) -> None:
    keys.write_bytes(content)
    with pytest.raises(BadModelKeys, match=r"must hold public keys in PEM form, of the curves P-256, P-384 or P-521"):
        read_model_keys(keys)


def test_keys_that_cannot_be_read_are_refused_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(BadModelKeys, match=r"the file of --model-keys cannot be read: no such file"):
        read_model_keys(tmp_path / "none.pem")


def test_a_refused_file_is_never_parsed(model: Path, keys: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def parse(*_: object, **__: object) -> None:
        raise AssertionError("the file was parsed")

    monkeypatch.setattr(registry, "load_classifier", parse)
    monkeypatch.setattr(registry, "load_graph_model", parse)
    model.with_suffix(".sig").unlink()
    with pytest.raises(ModelRepositoryError, match="not signed"):
        registry.load(ModelFile("tiny", "1", model), providers="cpu", max_batch=1, model_keys=keys)
