"""Signatures of model files, by the library of the OpenSSF Model Signing specification (extra `sign`).

A signature is detached: `model.sig` beside `model.onnx`. It covers the bytes of that file, wherever it lies.
`service/model_files/signature.py` verifies it, and so does `model_signing verify key model.onnx --signature model.sig`.
"""

import os
from collections.abc import Callable
from pathlib import Path

from export.errors import ExportError
from service.model_files.signature import signature_of

Sign = Callable[[Path], None]

PASSWORD = "EXPORT_SIGN_PASSWORD"  # noqa: S105 the name of the environment variable
_CURVES = ("secp256r1", "secp384r1", "secp521r1")


def make_signer(key: Path) -> Sign:
    """Return a function that writes the signature of a model file beside it, with this private key.

    Raises ExportError for a key that cannot sign, before anything is converted.
    """
    password = os.environ.get(PASSWORD)
    _check_key(key, password)
    try:
        from model_signing.signing import Config
    except ModuleNotFoundError as error:
        raise ExportError(f"--sign needs the package {error.name}; install this project with the extra sign") from None
    # The library passes the password on to `cryptography`, which takes bytes, whatever its own annotation says.
    config = Config().use_elliptic_key_signer(private_key=key, password=password and password.encode())

    def sign(model: Path) -> None:
        config.sign(model, signature_of(model))

    return sign


def _check_key(path: Path, password: str | None) -> None:
    try:
        from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
        from cryptography.hazmat.primitives.serialization import load_pem_private_key
    except ModuleNotFoundError:
        raise ExportError("--sign needs the package cryptography; install this project with the extra sign") from None
    try:
        key = load_pem_private_key(path.read_bytes(), None if password is None else password.encode())
    except OSError as error:
        reason = os.strerror(error.errno or 0).lower()
        raise ExportError(f"the key of --sign cannot be read: {path}: {reason}; give a file in PEM form") from None
    except TypeError:
        reason = "is encrypted; set" if password is None else "is not encrypted; unset"
        raise ExportError(f"the key of --sign {reason} {PASSWORD}") from None
    except Exception:  # ValueError and the library's own kinds
        key = None
    if not isinstance(key, EllipticCurvePrivateKey) or key.curve.name not in _CURVES:
        raise ExportError(
            f"{path} is no private key that can sign; `openssl ecparam -name prime256v1 -genkey -noout -out key.pem` "
            f"makes one, and {PASSWORD} holds the password of an encrypted one"
        )
