"""The report of `train-resnet report` in a browser: its controls, its widths, and no request to anything."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.browser.conftest import opened
from tests.support.runs.run_folders import write_the_four
from training.report.writing import write_report

pytestmark = [pytest.mark.browser, pytest.mark.timeout(400)]  # on a busy machine


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report")
    return write_report(write_the_four(folder / "runs"), folder / "out")[0]


@pytest.fixture
def page(browser: Any, report: Path) -> Iterator[Any]:
    with opened(browser, report.as_uri()) as page:
        yield page


def is_visible(page: Any, line: str) -> bool:
    return bool(page.locator(f"[id='curves-{line}']").evaluate("line => getComputedStyle(line).display !== 'none'"))


def checkbox(page: Any, name: str) -> Any:
    return page.get_by_role("checkbox", name=name, exact=True)


def test_depths_families_and_errors_can_be_chosen(page: Any) -> None:
    deep, shallow = "plain-line_plain56_test_0", "plain-line_plain20_test_0"
    assert is_visible(page, deep) and is_visible(page, shallow)
    checkbox(page, "56").uncheck()
    assert not is_visible(page, deep) and is_visible(page, shallow)
    checkbox(page, "training").uncheck()
    assert not is_visible(page, "plain-line_plain20_training_0")
    checkbox(page, "plain").uncheck()
    assert page.locator("#curves svg").first.is_hidden() and page.locator("#curves svg").last.is_visible()
    assert "plain-20" not in page.locator("#curves output").inner_text()


def test_values_are_read_at_the_chosen_step(page: Any) -> None:
    page.locator("#curves input[type=range]").evaluate(
        "slider => { slider.value = 2000; slider.dispatchEvent(new Event('input')); }"
    )
    assert "Step 2,000:" in page.locator("#curves output").inner_text()
    # run_folders: the test error of plain-20 ends at 15, and is 4,000 / step - 0.25 above that before.
    assert "plain-20 test 16.75%" in page.locator("#curves output").inner_text()


def test_a_phone_scrolls_downwards_only(browser: Any, report: Path) -> None:
    with opened(browser, report.as_uri(), width=360) as page:
        assert page.evaluate("document.documentElement.scrollWidth") <= 360


def test_without_scripts_the_figure_has_all_series_and_no_controls(browser: Any, report: Path) -> None:
    with opened(browser, report.as_uri(), java_script_enabled=False) as page:
        assert page.locator("#curves .controls").count() == 0
        assert page.locator("#curves g[id*='-line_']").count() == 8
