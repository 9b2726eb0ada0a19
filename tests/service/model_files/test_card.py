"""The model card: read strictly, and refused in one line that says where it is wrong."""

import hashlib
import json
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from service.model_files.card import METADATA_KEY, BadCard, ModelCard, Variant, golden_input, read_card


def card_as_written() -> dict[str, Any]:
    return {
        "schema_version": 1,
        "network": "resnet20",
        "depth": 20,
        "variant": {"shortcut": "A", "stride_in": None},
        "labels": ["cat", "dog", "ship"],
        "preprocessing": {
            "shorter_side": 40,
            "crop": [32, 36],
            "interpolation": "bicubic",
            "antialias": True,
            "mean": [0.5, 0.5, 0.5],
            "standard_deviation": [0.25, 0.25, 0.25],
        },
        "dataset": "pets",
        "precision": "fp32",
        "accuracy": {"top1": 0.9, "top5": 1, "images": 10, "dataset": "pets", "provider": "CPUExecutionProvider"},
        "calibration": {"temperature": 1.2, "expected_calibration_error": 0.01, "images": 20},
        "parity": {"largest_probability_difference": 1e-7, "images": 9, "agreeing_images": 9, "batch_sizes": [1, 8]},
        "provenance": {
            "checkpoint_sha256": None,
            "recipe": None,
            "seed": 1,
            "git_commit": None,
            "created": "2026-11-23T00:00:00Z",
            "versions": {"numpy": "2.4.6"},
        },
        "golden": {"probabilities": [0.2, 0.3, 0.5]},
    }


def changed(path: str, value: Any) -> dict[str, Any]:
    card = card_as_written()
    *parents, last = path.split(".")
    part = card
    for parent in parents:
        part = part[parent]
    part[last] = value
    return card


def refusal(document: str) -> str:
    with pytest.raises(BadCard) as refused:
        read_card({METADATA_KEY: document})
    message = str(refused.value)
    assert "\n" not in message
    assert "pydantic" not in message
    return message


def test_a_card_survives_writing_and_reading() -> None:
    card = read_card({METADATA_KEY: json.dumps(card_as_written()), "other": "entry"})
    assert card.labels == ("cat", "dog", "ship")
    assert card.preprocessing.crop == (32, 36)
    assert read_card({METADATA_KEY: card.model_dump_json()}) == card


def test_a_card_cannot_be_changed() -> None:
    card = ModelCard.model_validate(card_as_written())
    with pytest.raises(ValidationError):
        card.depth = 18  # type: ignore[misc]


def test_a_file_without_a_card_says_how_to_get_one() -> None:
    with pytest.raises(BadCard, match="no model card; export it with export-onnx"):
        read_card({})


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("schema_version", 2),
        ("surprise", 1),
        ("preprocessing.surprise", 1),
        ("preprocessing.crop", [41, 32]),
        ("preprocessing.crop", [32]),
        ("preprocessing.interpolation", "area"),
        ("preprocessing.antialias", False),
        ("preprocessing.shorter_side", 0),
        ("labels", ["cat"]),
        ("labels", ["cat", "", "ship"]),
        ("golden.probabilities", [0.5, 0.5]),
        ("golden.probabilities", [0.2, 0.3, 1.5]),
        ("precision", "fp8"),
        ("variant.shortcut", "D"),
        ("accuracy.top1", 91.8),
        ("calibration.temperature", 0),
        ("parity.agreeing_images", -1),
        ("depth", "twenty"),
        ("network", None),
    ],
)
def test_a_wrong_value_is_refused_in_one_line_that_names_its_place(path: str, value: Any) -> None:
    message = refusal(json.dumps(changed(path, value)))
    assert message.startswith("the model card is not valid at ")
    assert path.split(".", maxsplit=1)[0] in message or "the document" in message


@pytest.mark.parametrize("missing", sorted(card_as_written().keys() - {"schema_version"}))
def test_a_missing_part_is_refused_by_its_name(missing: str) -> None:
    card = card_as_written()
    del card[missing]
    assert f"at {missing}:" in refusal(json.dumps(card))


@pytest.mark.parametrize("document", ["", "{", "[]", "null", '"card"', "\x00"])
def test_a_card_that_is_no_json_object_is_refused(document: str) -> None:
    assert "at the document:" in refusal(document)


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        ("surprise", 1, "at surprise: this version does not know the field"),
        ("depth", "twenty", "at depth: this version does not understand the value; export the model again"),
        ("preprocessing.crop", [41, 32], "at preprocessing: a crop of (41, 32) does not fit a shorter side of 40"),
    ],
)
def test_a_fault_is_reported_in_our_own_words(path: str, value: Any, words: str) -> None:
    assert refusal(json.dumps(changed(path, value))).endswith(words)


def test_labels_and_golden_probabilities_are_counted_against_each_other() -> None:
    assert "2 golden probabilities for 3 labels" in refusal(json.dumps(changed("golden.probabilities", [0.5, 0.5])))


def test_the_golden_input_can_be_made_by_anyone() -> None:
    pixels = golden_input(5, 7)
    assert pixels.shape == (1, 5, 7, 3)
    assert pixels.dtype == np.uint8
    assert pixels.tobytes() == hashlib.shake_256(b"golden").digest(105)
    assert pixels.ravel()[:4].tolist() == golden_input(1, 2).ravel()[:4].tolist()


def test_a_resizer_is_optional_and_written_where_it_is_recorded() -> None:
    older = ModelCard.model_validate(card_as_written())
    assert older.preprocessing.resizer is None and "resizer" not in older.model_dump()["preprocessing"]
    assert json.loads(older.model_dump_json())["preprocessing"] == card_as_written()["preprocessing"]
    for resizer in ("pillow", "cykooz-resizer"):
        card = ModelCard.model_validate(changed("preprocessing.resizer", resizer))
        assert read_card({METADATA_KEY: card.model_dump_json()}).preprocessing.resizer == resizer
    assert "preprocessing.resizer" in refusal(json.dumps(changed("preprocessing.resizer", "other")))


def test_a_stem_is_written_only_where_it_is_not_the_papers() -> None:
    """Services that are older than the field refuse cards that have it."""
    assert "stem" not in Variant(shortcut="B", stride_in="3x3").model_dump()
    assert "stem" not in json.loads(Variant(shortcut="B", stride_in="3x3").model_dump_json())
    assert Variant(shortcut="B", stride_in=None, stem="3x3").model_dump()["stem"] == "3x3"
