"""A model archive of TorchServe (`.mar`): its weights, class names, name and preprocessing.

An archive is a zip file with MAR-INF/MANIFEST.json, a state dict or a TorchScript program, and often
index_to_name.json. Only tensors and names are read: no code of an archive runs here. The handler `image_classifier`
has fixed preprocessing; that of any other handler is code, so an archive with one is refused.
"""

import dataclasses
import json
import re
import shutil
import tempfile
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, NoReturn

from export.errors import ExportError
from export.sources.imagenet import imagenet_classes
from export.sources.network_spec import NetworkSpec
from export.sources.pretrained import Log, from_file
from export.sources.trained import Source
from service.model_files.card import Preprocessing
from training.networks.colour_statistics import IMAGENET

ENDING = ".mar"
_MANIFEST, _NAMES = "MAR-INF/MANIFEST.json", "index_to_name.json"
_HANDLER = "image_classifier"
# TorchServe's handler image_classifier: Resize(256), CenterCrop(224), ToTensor, and Normalize with ImageNet's colours.
_PREPROCESSING = Preprocessing(
    shorter_side=256,
    crop=(224, 224),
    interpolation="bilinear",
    mean=IMAGENET.mean,
    standard_deviation=IMAGENET.standard_deviation,
)
_MOST_JSON_BYTES = 16 * 1024 * 1024
_MOST_NAME = 64
_SYNSET = re.compile(r"n\d{8}")
_DAMAGED = (zipfile.BadZipFile, NotImplementedError, RuntimeError, OSError, EOFError)  # RuntimeError: encrypted


@dataclass(frozen=True, slots=True)
class ClassNames:
    """The names of all classes, by index, and their synset ids if every class has one."""

    names: tuple[str, ...]
    synsets: tuple[str, ...] | None


@dataclass(frozen=True, slots=True)
class _Unpacked:
    name: str
    weights: Path
    classes: ClassNames | None


def is_archive(path: Path) -> bool:
    """Whether a file is a model archive, by its ending or its content."""
    if path.suffix.lower() == ENDING:
        return True
    try:
        with zipfile.ZipFile(path) as archive:
            return _MANIFEST in archive.namelist()
    except (*_DAMAGED, ValueError):
        return False


def from_archive(path: Path, choice: NetworkSpec, labels: Sequence[str] | None, log: Log) -> Source:
    """Return the network of an archive, under the archive's name; `labels` replace its class names.

    Raises ExportError for an archive of another handler, of a program, or of weights that fit no network here.
    """
    with tempfile.TemporaryDirectory() as folder:
        found = _unpacked(path, Path(folder), wants_names=labels is None)
        names = labels if found.classes is None else found.classes.names
        try:
            source = from_file(found.weights, choice, names, None, log)
        except ExportError as error:
            raise ExportError(str(error).replace(folder, str(path))) from None
    log(f"preprocessing of TorchServe's handler {_HANDLER}: shorter side 256, center crop 224, colours of ImageNet")
    return _as_served(source, _name_of(found.name, log), found.classes)


def _as_served(source: Source, name: str, classes: ClassNames | None) -> Source:
    """Return a source as TorchServe served it, whatever its publisher says of the weights."""
    is_imagenet = source.labels == imagenet_classes()[0] or (
        classes is not None and classes.synsets == imagenet_classes()[1]
    )
    return dataclasses.replace(
        source,
        name=name,
        preprocessing=_PREPROCESSING,
        published=source.published if source.preprocessing == _PREPROCESSING else None,
        trained_on=source.trained_on if is_imagenet else None,
        synsets=imagenet_classes()[1] if is_imagenet else None,
    )


def _unpacked(path: Path, folder: Path, *, wants_names: bool) -> _Unpacked:
    """Read an archive, and write its state dict into a folder."""
    if not path.is_file():
        raise ExportError(f"there is no file {path}; give --weights a model archive, as torch-model-archiver writes it")
    try:
        with zipfile.ZipFile(path) as archive:
            model = _model_of(archive, path)
            _refuse_other_handler(model.get("handler"), path)
            classes = _class_names(archive, path) if wants_names else None
            weights = _weights(archive, str(model.get("serializedFile") or ""), path, folder)
            return _Unpacked(str(model.get("modelName") or path.stem), weights, classes)
    except _DAMAGED as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ExportError(f"{path} cannot be read as a zip file: {reason}; archive the model again") from None


def _model_of(archive: zipfile.ZipFile, path: Path) -> dict[str, Any]:
    if _MANIFEST not in archive.namelist():
        raise ExportError(f"{path} is no model archive: it has no {_MANIFEST}; give --weights the state dict itself")
    model = _json_in(archive, _MANIFEST, path).get("model")
    if not isinstance(model, dict):
        raise ExportError(f"{_MANIFEST} of {path} describes no model; archive the model again")
    return model


def _json_in(archive: zipfile.ZipFile, name: str, path: Path) -> dict[str, Any]:
    with archive.open(name) as file:
        content = file.read(_MOST_JSON_BYTES + 1)
    try:
        document = json.loads(content) if len(content) <= _MOST_JSON_BYTES else None
    except ValueError:
        document = None
    if not isinstance(document, dict):
        raise ExportError(f"{name} of {path} is no JSON object; archive the model again")
    return document


def _refuse_other_handler(handler: object, path: Path) -> None:
    if handler != _HANDLER:
        raise ExportError(
            f"{path} has the handler {handler!r}, whose preprocessing is not known here; if it is that of "
            f"{_HANDLER}, export the state dict in it: --weights FILE.pth --labels FILE"
        )


def _weights(archive: zipfile.ZipFile, name: str, path: Path, folder: Path) -> Path:
    """Return the state dict as a file of its own."""
    if not name or name not in archive.namelist():
        raise ExportError(
            f"{path} has no state dict: {f'{name} is not in it' if name else 'its manifest names no serializedFile'}; "
            "archive it with --serialized-file, or give --weights the state dict itself"
        )
    file = folder / PurePosixPath(name).name
    with archive.open(name) as packed, file.open("wb") as unpacked:
        shutil.copyfileobj(packed, unpacked)
    _refuse_programs(file, name, path)
    return file


def _refuse_programs(file: Path, name: str, path: Path) -> None:
    if file.suffix == ".onnx":
        raise ExportError(f"{name} of {path} is ONNX already; a model without a card serves tensors: put it in models/")
    if zipfile.is_zipfile(file):
        with zipfile.ZipFile(file) as content:
            if any("/code/" in f"/{member}" for member in content.namelist()):
                _refuse_torchscript(name, path)


def _refuse_torchscript(name: str, path: Path) -> NoReturn:
    raise ExportError(
        f"{name} of {path} is TorchScript, a program and not weights; save its weights with "
        f"torch.save(torch.jit.load({name!r}).state_dict(), 'weights.pth'), then export-onnx --weights weights.pth"
    )


def _class_names(archive: zipfile.ZipFile, path: Path) -> ClassNames | None:
    """Return the names in index_to_name.json in each form that TorchServe reads, or None without that file."""
    if _NAMES not in archive.namelist():
        return None
    mapping = _json_in(archive, _NAMES, path)
    listed = mapping.get("object_type_names")
    entries = dict(enumerate(listed)) if isinstance(listed, list) else mapping
    by_index = {str(index): entry for index, entry in entries.items()}
    ordered = [by_index.get(str(index)) for index in range(len(by_index))]
    if len(ordered) < 2 or not all(_names_a_class(entry) for entry in ordered):
        raise ExportError(
            f"{_NAMES} of {path} must name the classes 0 to {max(1, len(ordered) - 1)}, each as a text or as a list "
            "that ends with one; give the names with --labels"
        )
    parts = [entry if isinstance(entry, list) else [entry] for entry in ordered]
    synsets = tuple(str(part[0]) for part in parts)
    are_synsets = all(len(part) > 1 and _SYNSET.fullmatch(synset) for part, synset in zip(parts, synsets, strict=True))
    return ClassNames(_distinct([str(part[-1]) for part in parts]), synsets if are_synsets else None)


def _names_a_class(entry: object) -> bool:
    last = entry[-1] if isinstance(entry, list) and entry else entry
    return isinstance(last, str) and bool(last.strip())


def _distinct(names: list[str]) -> tuple[str, ...]:
    """Return names of which none occurs twice: ImageNet has two classes `crane`."""
    return tuple(
        name if names.count(name) == 1 else f"{name} ({names[: index + 1].count(name)})"
        for index, name in enumerate(names)
    )


def _name_of(name: str, log: Log) -> str:
    """Return a name that the service takes, as close to the archive's as possible."""
    plain = re.sub(r"[^a-z0-9._-]+", "-", name.lower()).lstrip("._-")[:_MOST_NAME] or "model"
    if plain != name:
        log(f"the model {name!r} gets the name {plain}: names have lower-case letters, digits, dots and dashes")
    return plain
