import pytest

from benchmarks.training import Pair, main, summary


def test_the_summary_is_of_medians_and_says_what_was_reached() -> None:
    pairs = [Pair(100, 150, 0.01), Pair(100, 300, 0.02), Pair(200, 240, 0.09)]
    said = summary(pairs, has_bf16=False)
    assert "plain     100, ours     240 images/s" in said and "ratios 1.20 to 3.00" in said
    assert "ratio 1.50, required 1.3: reached" in said and "2.0%, required at most 5%: reached" in said
    assert "required 2: NOT reached" in summary(pairs, has_bf16=True)


@pytest.mark.long
def test_the_benchmark_trains_both_ways_and_names_commit_and_processor(capsys: pytest.CaptureFixture[str]) -> None:
    main(["--pairs", "2", "--steps", "1", "--batch", "8", "--network", "resnet8"])
    said = capsys.readouterr().out
    assert "commit " in said and " cores, torch " in said and "DataLoader with" in said
    assert "pair 2: plain" in said and "share of the images" in said
