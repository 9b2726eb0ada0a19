"""Keys of a test's own, and signatures with any content in the form of OpenSSF Model Signing."""

import base64
import hashlib
import json
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

PAYLOAD = "application/vnd.in-toto+json"
_DIGESTS: dict[int, hashes.HashAlgorithm] = {256: hashes.SHA256(), 384: hashes.SHA384(), 521: hashes.SHA512()}


def make_key(curve: ec.EllipticCurve | None = None) -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(curve or ec.SECP256R1())


def public_pem(*keys: ec.EllipticCurvePrivateKey) -> bytes:
    return b"".join(key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo) for key in keys)


def private_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption())


def statement(content: bytes, name: str = ".", **changes: Any) -> dict[str, Any]:
    """Return what is signed of one file; `changes` replace parts of the predicate."""
    resources = [{"name": name, "algorithm": "sha256", "digest": hashlib.sha256(content).hexdigest()}]
    return {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{"name": "model", "digest": {"sha256": "00"}}],
        "predicateType": "https://model_signing/signature/v1.0",
        "predicate": {"serialization": {"method": "files", "hash_type": "sha256"}, "resources": resources, **changes},
    }


def bundle(signed_statement: dict[str, Any], key: ec.EllipticCurvePrivateKey, **changes: Any) -> dict[str, Any]:
    """Return a signature of a payload by this key; `changes` replace parts of the envelope."""
    text = json.dumps(signed_statement).encode()
    signed = b"DSSEv1 %d %b %d %b" % (len(PAYLOAD), PAYLOAD.encode(), len(text), text)
    made = key.sign(signed, ec.ECDSA(_DIGESTS[key.curve.key_size]))
    return {
        "mediaType": "application/vnd.dev.sigstore.bundle.v0.3+json",
        "verificationMaterial": {
            "publicKey": {"hint": hashlib.sha256(public_pem(key)).hexdigest()},
            "tlogEntries": [],
        },
        "dsseEnvelope": {
            "payload": base64.b64encode(text).decode(),
            "payloadType": PAYLOAD,
            "signatures": [{"sig": base64.b64encode(made).decode(), "keyid": ""}],
            **changes,
        },
    }


def sign(model: Path, key: ec.EllipticCurvePrivateKey) -> None:
    """Write the signature of a model file beside it."""
    model.with_suffix(".sig").write_text(json.dumps(bundle(statement(model.read_bytes()), key)))


def altered(model: Path) -> None:
    """Change the last byte of a signed file."""
    model.write_bytes(model.read_bytes()[:-1] + b"?")


def unsigned(model: Path) -> None:
    """Remove the signature of a file."""
    model.with_suffix(".sig").unlink()


def signed_by_another(model: Path) -> None:
    """Sign a file with a key of its own."""
    sign(model, make_key())
