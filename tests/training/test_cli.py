import sys

import pytest
from typer.testing import CliRunner

from training.cli import main, start


def test_a_package_that_is_not_installed_is_reported_in_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    monkeypatch.delitem(sys.modules, "training.networks.cost", raising=False)
    monkeypatch.delitem(sys.modules, "training.networks.resnet", raising=False)
    monkeypatch.setattr(sys, "argv", ["train-resnet", "cost"])
    with pytest.raises(SystemExit, match="1"):
        start()
    assert (
        capsys.readouterr().err
        == "train-resnet: torch is not installed; install this project with the extra train: make install\n"
    )


@pytest.mark.parametrize(("given", "meant"), [("rum", "run"), ("evaluat", "evaluate"), ("recipe", "recipes")])
def test_a_misspelt_command_is_answered_with_the_one_that_is_meant(given: str, meant: str) -> None:
    result = CliRunner().invoke(main, [given])
    assert result.exit_code == 2 and f"Did you mean '{meant}'" in result.output
