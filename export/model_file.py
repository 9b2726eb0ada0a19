"""The location of a model file, and its atomic writing: its name refers to the whole file or to none.

The default location is the next version in a repository of models, `models/<name>/<version>/model.onnx`. The version
folder itself appears in one step, so that a server never sees an empty one. A signature is written beside the file: in
the same step for a new version, before the file for any other name.
"""

import errno
import os
import secrets
import shutil
from pathlib import Path

from export.errors import ExportError
from export.signing import Sign
from service.model_files.card import METADATA_KEY
from service.model_files.checksum import CORRUPTED, has_valid_checksum
from service.model_files.repository import MODEL_FILE
from service.model_files.signature import BadModelKeys, SignatureRefused, check_signature, signature_of
from training.weights.checkpoint import flush

_TAKEN = (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR)


def read_file(path: Path, model_keys: Path | None = None) -> bytes:
    """Return the content of a model file with a valid checksum, signed by one of the keys if they are given.

    Raises ExportError for any other file.
    """
    try:
        content = path.read_bytes()
    except OSError:
        raise ExportError(f"{path} cannot be read; give the path of a model.onnx") from None
    if model_keys is not None:
        _check_signature(path, content, model_keys)
    if METADATA_KEY.encode() not in content:
        raise ExportError(f"{path} is not a model file with a model card, or only a part of one; export it again")
    if not has_valid_checksum(content):
        raise ExportError(f"{path} {CORRUPTED}")
    return content


def _check_signature(path: Path, content: bytes, model_keys: Path) -> None:
    try:
        check_signature(path, content, model_keys)
    except (SignatureRefused, BadModelKeys) as error:
        raise ExportError(f"{path}: {error}") from None


def write_file(path: Path, content: bytes, sign: Sign | None = None) -> None:
    """Write or replace a file in one step. Raises ExportError, and then nothing has changed."""
    hidden = _hidden(path.parent)
    try:
        hidden.mkdir(parents=True)
        _write_through(hidden / path.name, content)
        if sign is not None:  # before the file: what lies there meanwhile is refused, and never served unsigned
            sign(hidden / path.name)
            signature_of(hidden / path.name).replace(signature_of(path))
        (hidden / path.name).replace(path)
        flush(path.parent)
    except OSError as error:
        raise _cannot_write(path, error) from None
    finally:
        shutil.rmtree(hidden, ignore_errors=True)


def write_next_version(model_folder: Path, content: bytes, sign: Sign | None = None) -> Path:
    """Write `<next version>/model.onnx` into a model's folder and return its path. Raises ExportError."""
    hidden = _hidden(model_folder)
    try:
        hidden.mkdir(parents=True)
        _write_through(hidden / MODEL_FILE, content)
        if sign is not None:
            sign(hidden / MODEL_FILE)
        flush(hidden)
        version = _give_next_version(hidden, model_folder)
        flush(model_folder)
    except OSError as error:
        raise _cannot_write(model_folder, error) from None
    finally:
        shutil.rmtree(hidden, ignore_errors=True)
    return model_folder / str(version) / MODEL_FILE


def _hidden(folder: Path) -> Path:
    return folder / f".export-{secrets.token_hex(6)}"


def _give_next_version(hidden: Path, model_folder: Path) -> int:
    version = _newest_version(model_folder) + 1
    while True:
        try:
            hidden.rename(model_folder / str(version))
        except OSError as error:
            if error.errno not in _TAKEN:  # otherwise another export was first
                raise
            version += 1
        else:
            return version


def _newest_version(model_folder: Path) -> int:
    versions = [int(path.name) for path in model_folder.iterdir() if path.name.isascii() and path.name.isdigit()]
    return max(versions, default=0)


def _write_through(path: Path, content: bytes) -> None:
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _cannot_write(path: Path, error: OSError) -> ExportError:
    reason = os.strerror(error.errno or errno.EIO)
    return ExportError(f"cannot write {path}: {reason}; make room or give another --output")
