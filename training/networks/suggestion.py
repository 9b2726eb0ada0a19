"""The name that is probably meant by one that does not exist."""

import difflib
from collections.abc import Iterable

_DEPTHS = (18, 20, 32, 34, 44, 50, 56, 101, 110, 152)
NETWORKS = [f"{family}{depth}" for family in ("resnet", "plain") for depth in _DEPTHS]  # the common ones
_SYNONYMS = {
    "lr": "learning_rate",
    "bs": "batch_size",
    "wd": "weight_decay",
    "size": "image_size",
    "ema": "ema_decay",
    "smoothing": "label_smoothing",
    "val_split": "held_out_share",
    "patience": "early_stopping_patience",
    "model": "network",
    "arch": "network",
}


def did_you_mean(name: str, known: Iterable[str]) -> str | None:
    """Return `did you mean 'learning_rate'?` for the closest known name; None if none is close."""
    known = list(known)
    synonym = _SYNONYMS.get(name.lower().replace("-", "_"))
    close = [synonym] if synonym in known else difflib.get_close_matches(name.lower(), known, n=1)
    return f"did you mean {close[0]!r}?" if close else None
