"""The default model of an installed wheel, which serves where there is no folder of models.

A wheel has it outside the packages, at share/resnet-service/models below the environment's prefix; the record of the
installation says where that is. A checkout has the folder models/ instead.
"""

from importlib.metadata import PackageNotFoundError, files
from pathlib import Path, PurePosixPath

_DISTRIBUTION = "resnet-service"
_PLACE = PurePosixPath("share/resnet-service/models")
_DEPTH = 3  # <name>/<version>/model.onnx


def installed_models() -> Path | None:
    """Return the folder of the models that came with an installed wheel, or None."""
    try:
        recorded = files(_DISTRIBUTION) or ()
    except PackageNotFoundError:
        return None
    models = (file for file in recorded if file.parts[:-_DEPTH][-len(_PLACE.parts) :] == _PLACE.parts)
    first = next(models, None)
    folder = None if first is None else Path(str(first.locate())).resolve().parents[_DEPTH - 1]
    return folder if folder is not None and folder.is_dir() else None
