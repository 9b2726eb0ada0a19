"""Run folders as `train-resnet run` writes them, with invented numbers: nothing is trained."""

import dataclasses
import json
from pathlib import Path
from typing import Any

from tests.support.runs.run_records import record_of
from training.networks.resnet import architecture
from training.recipes.catalog import RECIPES
from training.report.paper_figures import CIFAR10_CLASSES

# Network → final training and test error.
FOUR = {"plain20": (12.0, 15.0), "plain56": (21.5, 23.0), "resnet20": (10.5, 13.5), "resnet56": (9.0, 12.5)}


def facts_of(network: str, train_error: float, test_error: float, **changes: Any) -> dict[str, Any]:
    """Return what run.json says; `changes` replace its values."""
    recipe = dataclasses.replace(RECIPES[f"paper-{network}"], steps=16_000)
    layers = [f"layer{index}" for index in range(1, architecture(network).depth)]
    norms = {name: 0.5 + 0.01 * index for index, name in enumerate([*layers, "fc"])}
    facts = record_of(network, list(CIFAR10_CLASSES)) | {
        "name": network,
        "depth": architecture(network).depth,
        "recipe": dataclasses.asdict(recipe),
        "steps": 16_000,
        "seed": 0,
        "dataset": {"name": "cifar10", "source": "cifar10.tar", "images": 50_000, "skipped": 0, "fingerprint": "f"},
        "hardware": {"device": "cpu", "processor": "a processor", "threads": 2, "precision": "fp32"},
        "git_commit": "c0ffee",
        "started": "2026-11-23T10:00:00+00:00",
        "finished": "2026-11-23T12:00:00+00:00",
        "held_out": [],
        "results": {
            "train": {"top1": train_error, "top5": 1.0, "loss": 0.4, "images": 50_000},
            "test": {"top1": test_error, "top5": 1.0, "loss": 0.5, "images": 10_000},
        },
        "gradient_norms": {"1": norms, "8000": norms, "16000": norms},
        "layer_responses": {name: 0.3 + 0.001 * index for index, name in enumerate(layers)},
    }
    return facts | changes


def write_run(folder: Path, facts: dict[str, Any]) -> Path:
    """Write run.json and metrics.jsonl, whose errors fall to the final ones."""
    folder.mkdir(parents=True)
    (folder / "run.json").write_text(json.dumps(facts))
    test_error = facts["results"]["test"]["top1"] if facts.get("results") else 30.0
    lines = [
        {"step": step, "epoch": step / 390, "train_loss": 1.0, "train_error": test_error + 40_000 / step}
        | {"learning_rate": 0.1, "test_error": test_error + 4_000 / step - 0.25}
        for step in range(2_000, 16_001, 2_000)
    ]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


def write_the_four(runs: Path) -> Path:
    """Write plain-20, plain-56, ResNet-20 and ResNet-56, with the degradation that the paper is about."""
    for network, errors in FOUR.items():
        write_run(runs / f"paper-{network}", facts_of(network, *errors))
    return runs
