"""Verification of a model file's detached signature, in the format of the OpenSSF Model Signing specification 1.0.

The signature of `model.onnx` is `model.sig` beside it: a Sigstore bundle around a DSSE envelope, whose payload lists
the digest of each signed file. `export-onnx --sign` and the tool `model_signing` write it. Nothing of the payload is
read before its signature is verified, and the model is not parsed here.
"""

import base64
import binascii
import hashlib
import hmac
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from service.model_files.permissions import why_unreadable

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey

SUFFIX = ".sig"
_LONGEST_SIGNATURE = 1024 * 1024  # bytes; a signature of one file has about 1,600
_BUNDLE = "application/vnd.dev.sigstore.bundle.v0.3+json"
_PAYLOAD = "application/vnd.in-toto+json"
_STATEMENT = "https://in-toto.io/Statement/v1"
_PREDICATE = "https://model_signing/signature/v1.0"
_HASHES = ("sha256", "blake2b")  # of those of the specification, what hashlib has
_CURVES = {"secp256r1": "SHA256", "secp384r1": "SHA384", "secp521r1": "SHA512"}  # and the digest that is signed
_END_OF_KEY = "-----END PUBLIC KEY-----"


class SignatureRefused(Exception):
    """A model file that no accepted key has signed. The message is one line, and names no path."""


class BadModelKeys(Exception):
    """An unusable file of public keys. The message is one line, and names no path."""


def signature_of(model: Path) -> Path:
    """Return where the signature of a model file lies."""
    return model.with_suffix(SUFFIX)


def check_signature(model: Path, content: bytes, keys_file: Path) -> None:
    """Check that one of the keys has signed this content of a model file.

    Raises SignatureRefused, and BadModelKeys if the file of keys cannot be used.
    """
    keys = read_model_keys(keys_file)
    name = signature_of(model).name
    try:
        payload = _verified_payload(_read_signature(signature_of(model)), keys, name)
        resources = _resources(payload)
    except (ValueError, KeyError, TypeError, RecursionError):
        raise SignatureRefused(f"{name} is no OpenSSF model signature of version 1.0; sign the file again") from None
    _check_digest(resources, model.name, content)


def read_model_keys(path: Path) -> "list[EllipticCurvePublicKey]":
    """Return the keys of a file of PEM public keys. Raises BadModelKeys."""
    try:
        from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
        from cryptography.hazmat.primitives.serialization import load_pem_public_key
    except ImportError:
        raise BadModelKeys(
            "--model-keys needs the package cryptography; install this project with the extra verify"
        ) from None
    try:
        blocks = path.read_text("ascii").split(_END_OF_KEY)[:-1]
        keys = [load_pem_public_key((block + _END_OF_KEY).encode()) for block in blocks]
    except OSError as error:
        raise BadModelKeys(f"the file of --model-keys cannot be read{why_unreadable(path, error)}") from None
    except Exception:  # ValueError and the library's own kinds
        keys = []
    found = [key for key in keys if isinstance(key, EllipticCurvePublicKey) and key.curve.name in _CURVES]
    if not found or len(found) != len(keys):
        raise BadModelKeys(
            "the file of --model-keys must hold public keys in PEM form, of the curves P-256, P-384 or P-521; "
            "`openssl ec -in key.pem -pubout` writes one"
        )
    return found


def _read_signature(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            content = file.read(_LONGEST_SIGNATURE + 1)
    except (FileNotFoundError, NotADirectoryError):
        raise SignatureRefused(
            f"the file is not signed: there is no {path.name} beside it; sign it with export-onnx --sign"
        ) from None
    except OSError as error:
        raise SignatureRefused(f"its signature {path.name} cannot be read{why_unreadable(path, error)}") from None
    if len(content) > _LONGEST_SIGNATURE:
        raise ValueError("too long for a signature")
    return content


def _verified_payload(bundle: bytes, keys: "Sequence[EllipticCurvePublicKey]", name: str) -> bytes:
    """Return the payload of a bundle that one of the keys has signed. Raises SignatureRefused, ValueError, KeyError."""
    document: dict[str, Any] = json.loads(bundle)
    envelope = document["dsseEnvelope"]
    if document["mediaType"] != _BUNDLE or envelope["payloadType"] != _PAYLOAD:
        raise ValueError("another kind of bundle")
    payload, (signature,) = _decoded(envelope["payload"]), [_decoded(one["sig"]) for one in envelope["signatures"]]
    signed = b"DSSEv1 %d %b %d %b" % (len(_PAYLOAD), _PAYLOAD.encode(), len(payload), payload)
    if any(_has_signed(key, signature, signed) for key in keys):
        return payload
    hint = document.get("verificationMaterial", {}).get("publicKey", {}).get("hint")
    if hint in map(_fingerprint, keys):
        raise SignatureRefused(f"{name} was altered: the signature in it does not fit its content; sign the file again")
    raise SignatureRefused(f"{name} was made with a key that --model-keys does not hold; add the key, or sign it again")


def _decoded(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error:
        raise ValueError("not base64") from None


def _has_signed(key: "EllipticCurvePublicKey", signature: bytes, signed: bytes) -> bool:
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric.ec import ECDSA

    try:
        key.verify(signature, signed, ECDSA(getattr(hashes, _CURVES[key.curve.name])()))
    except InvalidSignature:
        return False
    return True


def _fingerprint(key: "EllipticCurvePublicKey") -> str:
    """Return what the specification puts into a bundle as the hint at a key."""
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    return hashlib.sha256(key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)).hexdigest()


def _resources(payload: bytes) -> dict[str, tuple[str, str]]:
    """Return algorithm and digest of each signed file, by its path. Raises ValueError, KeyError, TypeError."""
    statement = json.loads(payload)
    predicate = statement["predicate"]
    if (statement["_type"], statement["predicateType"]) != (_STATEMENT, _PREDICATE):
        raise ValueError("another kind of statement")
    if predicate["serialization"]["method"] != "files":
        raise ValueError("digests of parts of files")
    return {str(one["name"]): (str(one["algorithm"]), str(one["digest"])) for one in predicate["resources"]}


def _check_digest(resources: dict[str, tuple[str, str]], name: str, content: bytes) -> None:
    """Raise SignatureRefused unless this content was signed: as this file, or as a file of this name in a folder."""
    signed = resources.get(".") if len(resources) == 1 and "." in resources else resources.get(name)
    if signed is None:
        raise SignatureRefused(f"the signature beside it does not cover {name}; sign the file again")
    algorithm, digest = signed
    if algorithm not in _HASHES:
        raise SignatureRefused(f"it is signed by its {algorithm!r} digest; sign it with sha256")
    if not hmac.compare_digest(hashlib.new(algorithm, content).hexdigest().encode(), digest.encode()):
        raise SignatureRefused("the file was altered after it was signed; copy it again, or export and sign it again")
