"""What each provider is told: batch sizes, shapes and precision, and that the card says the same."""

from pathlib import Path

import pytest

from service.engine.provider_options import (
    CHAINS,
    CHOICES,
    bucket_of,
    buckets,
    cuda_options,
    profile_shapes,
    recommended,
    tensorrt_options,
)


@pytest.mark.parametrize(
    ("largest", "sizes"),
    [(1, (1,)), (2, (1, 2)), (3, (1, 2, 3)), (8, (1, 2, 4, 8)), (24, (1, 2, 4, 8, 16, 24)), (32, (1, 2, 4, 8, 16, 32))],
)
def test_batch_sizes_double_up_to_the_largest(largest: int, sizes: tuple[int, ...]) -> None:
    assert buckets(largest) == sizes


def test_no_batch_is_smaller_than_one() -> None:
    with pytest.raises(ValueError, match="the largest batch is 0"):
        buckets(0)


@pytest.mark.parametrize(("count", "bucket"), [(0, 1), (1, 1), (2, 2), (3, 4), (17, 24), (24, 24)])
def test_a_batch_is_padded_to_the_next_size(count: int, bucket: int) -> None:
    assert bucket_of(count, buckets(24)) == bucket


def test_the_profile_covers_every_batch_from_one_to_the_largest() -> None:
    assert profile_shapes(224, 160, 32) == {
        "trt_profile_min_shapes": "images:1x224x160x3",
        "trt_profile_opt_shapes": "images:8x224x160x3",
        "trt_profile_max_shapes": "images:32x224x160x3",
    }


def test_a_batch_size_is_no_reason_to_search_for_algorithms_again() -> None:
    assert cuda_options()["cudnn_conv_algo_search"] == "HEURISTIC"


@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_tensorrt_gets_a_precision_that_it_would_not_use_by_itself(precision: str) -> None:
    told = tensorrt_options(32, 32, 8, precision)  # type: ignore[arg-type]
    assert {name for name in told if name.endswith("_enable")} == {f"trt_{precision}_enable"}


def test_full_precision_stays_full_precision() -> None:
    assert not [name for name in tensorrt_options(32, 32, 8, "fp32") if name.endswith("_enable")]
    assert cuda_options()["use_tf32"] == "0"


def test_engines_are_kept_where_there_is_a_folder_for_them(tmp_path: Path) -> None:
    kept = tensorrt_options(32, 32, 8, "fp32", tmp_path)
    assert kept["trt_engine_cache_enable"] == "1"
    assert kept["trt_engine_cache_path"] == str(tmp_path)


def test_auto_prefers_tensorrt_to_cuda_to_the_cpu_and_others_have_no_choice() -> None:
    assert [name.removesuffix("ExecutionProvider") for name in CHOICES["auto"]] == ["Tensorrt", "CUDA", "CPU"]
    assert all(len(names) == 1 for choice, names in CHOICES.items() if choice != "auto")
    assert all(chain[0] == provider and chain[-1].startswith("CPU") for provider, chain in CHAINS.items())


def test_the_card_recommends_what_the_service_does() -> None:
    card = recommended(224, 224, "fp16")
    assert card.batch_sizes == buckets(32)
    assert card.precision == "fp16"
    assert card.cuda == cuda_options()
    assert card.tensorrt == tensorrt_options(224, 224, 32, "fp16")
    assert not [value for value in card.tensorrt.values() if "/" in value]  # no folder of the exporter's
