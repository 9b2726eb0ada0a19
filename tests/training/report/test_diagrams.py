"""The drawings of blocks and networks say what the modules are."""

from training.report import diagrams


def test_the_strips_have_the_layers_that_give_the_networks_their_names() -> None:
    figure = diagrams.strips()
    rows = {name: [row for row in figure.data.rows if row[0] == name] for name in ("VGG-19", "plain-34", "ResNet-34")}
    weighted = {name: [row for row in found if "pool" not in row[2]] for name, found in rows.items()}
    assert {name: len(found) for name, found in weighted.items()} == {"VGG-19": 19, "plain-34": 34, "ResNet-34": 34}
    assert [row[2] for row in rows["plain-34"]] == [row[2] for row in rows["ResNet-34"]]
    shortcuts = [row[3] for row in rows["ResNet-34"] if row[3]]
    assert len(shortcuts) == 16 and shortcuts.count("identity") == 13
    assert not any(row[3] for row in rows["plain-34"])


def test_each_shortcut_is_drawn_as_it_is_built() -> None:
    a, b, c = (panel.svg for panel in diagrams.shortcut_blocks().panels)
    assert "16 zero channels" in a and "1×1" not in a
    for projection in (b, c):
        assert "1×1, 32 /2, BN" in projection and "zero channels" not in projection


def test_only_the_residual_block_has_an_addition() -> None:
    plain, residual = (panel.svg for panel in diagrams.plain_and_residual().panels)
    assert ">+</text>" in residual and "identity" in residual
    assert ">+</text>" not in plain and "identity" not in plain


def test_a_bottleneck_has_three_layers() -> None:
    kernels = [(row[0], row[2], row[4]) for row in diagrams.bottleneck().data.rows]
    assert kernels == [
        ("ResNet-34", "3x3", "64"),
        ("ResNet-34", "3x3", "64"),
        ("ResNet-50", "1x1", "64"),
        ("ResNet-50", "3x3", "64"),
        ("ResNet-50", "1x1", "256"),
    ]
