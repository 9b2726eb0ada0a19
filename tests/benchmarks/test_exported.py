"""The benchmark of exported files counts images, not batches, and puts ratios under the figures they come from."""

from benchmarks.exported import images_per_second, table


def test_speed_is_images_not_batches_and_everybody_gets_a_turn() -> None:
    runs: list[str] = []
    speeds = images_per_second({"one": lambda: runs.append("one"), "other": lambda: runs.append("other")}, 8, 0.0)
    assert runs[:4] == ["one", "one", "other", "other"]  # to warm up
    assert runs[4:] == ["one", "other"] * 5
    assert all(speed > 8 for speed in speeds.values())


def test_a_table_has_a_line_for_each_contender_and_the_ratios_below() -> None:
    names = ["PyTorch eager", "stock export, ONNX Runtime", "export-onnx fp32", "export-onnx int8"]
    written = table("ResNet-8", names, {1: dict(zip(names, (10.0, 20.0, 40.0, 100.0), strict=True))}).splitlines()
    assert written[0] == "### ResNet-8"
    assert written[2] == "| images/s at batch | 1 |"
    assert "| export-onnx int8 | 100.0 |" in written
    assert written[-3:] == [
        "| *int8 : fp32* | 2.50 |",
        "| *fp32 : stock export* | 2.00 |",
        "| *fp32 : PyTorch eager* | 4.00 |",
    ]
