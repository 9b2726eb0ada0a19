"""The smallest run.json that `training.runs.record` accepts."""

from typing import Any

from training.networks.resnet import architecture


def record_of(network: str, labels: list[str], *, side: int = 32, shorter_side: int | None = None) -> dict[str, Any]:
    """Return a record of a run on square images of `side` pixels, to be changed with `|`."""
    described = architecture(network)
    return {
        "network": network,
        "shortcut": described.shortcut,
        "stride_in": described.stride_in,
        "labels": labels,
        "preprocessing": {
            "shorter_side": shorter_side or side,
            "crop": [side, side],
            "interpolation": "bilinear",
            "mean": [0.48, 0.45, 0.4],
            "standard_deviation": [0.23, 0.22, 0.22],
        },
        "recipe": {"name": f"modern-{network}"},
        "steps": 12,
        "seed": 0,
        "dataset": {"name": "things", "source": "../absent/things", "images": 120, "fingerprint": "0"},
    }
