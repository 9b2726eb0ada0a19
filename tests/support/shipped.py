"""A folder of shipped runs, made for a test: tiny images, random weights, in the layout of training/results/."""

import json
from pathlib import Path

from safetensors.torch import save_file

from training.networks.resnet import architecture, build

COLOURS = {"mean": [0.48, 0.45, 0.4], "standard_deviation": [0.23, 0.22, 0.22]}


def write_shipped(results: Path, name: str, network: str, *, side: int = 32, classes: int = 3) -> Path:
    """Write a run as it ships: run.json and the weights beside it."""
    described = architecture(network, stem="3x3" if architecture(network).imagenet else None)
    run = results / name
    run.mkdir(parents=True)
    model = build(network, num_classes=classes, stem=described.stem)
    save_file({key: tensor.contiguous() for key, tensor in model.state_dict().items()}, run / "weights.safetensors")
    facts = {
        "network": network,
        "shortcut": described.shortcut,
        "stride_in": described.stride_in,
        "stem": described.stem,
        "labels": [f"thing {index}" for index in range(classes)],
        "preprocessing": {"shorter_side": side, "crop": [side, side], "interpolation": "bilinear"} | COLOURS,
        "recipe": {"name": f"everyday-{network}"},
        "seed": 0,
        "dataset": {"name": "tiny-things", "source": "../absent/tiny-things", "fingerprint": "0"},
        "results": {"test": {"top1": 41.5, "top5": 18.0, "loss": 1.9, "images": 10_000}},
        "finished": "2026-11-30T08:00:00+00:00",
    }
    (run / "run.json").write_text(json.dumps(facts))
    return run
