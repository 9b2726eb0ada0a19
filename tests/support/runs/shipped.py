"""A folder of shipped runs, made for a test: tiny images, random weights, in the layout of training/results/."""

import json
from pathlib import Path

from safetensors.torch import save_file

from tests.support.runs.run_records import record_of
from training.networks.resnet import architecture, build


def write_shipped(results: Path, name: str, network: str, *, side: int = 32, classes: int = 3) -> Path:
    """Write a run as it ships: run.json and the weights beside it."""
    described = architecture(network, stem="3x3" if architecture(network).imagenet else None)
    run = results / name
    run.mkdir(parents=True)
    model = build(network, num_classes=classes, stem=described.stem)
    save_file({key: tensor.contiguous() for key, tensor in model.state_dict().items()}, run / "weights.safetensors")
    labels = [f"thing {index}" for index in range(classes)]
    facts = record_of(network, labels, side=side) | {
        "stem": described.stem,
        "recipe": {"name": f"everyday-{network}"},
        "dataset": {"name": "tiny-things", "source": "../absent/tiny-things", "images": 300, "fingerprint": "0"},
        "results": {"test": {"top1": 41.5, "top5": 18.0, "loss": 1.9, "images": 10_000}},
        "finished": "2026-11-30T08:00:00+00:00",
    }
    (run / "run.json").write_text(json.dumps(facts))
    return run
