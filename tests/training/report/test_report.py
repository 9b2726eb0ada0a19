"""The report: claims and parts from whatever runs there are, and nothing claimed that they do not show."""

import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from typer.testing import CliRunner

from tests.support.runs.run_folders import FOUR, facts_of, write_run, write_the_four
from training.cli import main

PARTS = ("a", "b", "c", "d", "e", "f", "g", "h")


def report(runs: Path, *options: str) -> Result:
    return CliRunner().invoke(main, ["report", "--runs", str(runs), *options])


def write_page(runs: Path, out: Path) -> str:
    result = report(runs, "--out", str(out))
    assert result.exit_code == 0, result.output
    return (out / "report.html").read_text()


def numbers_of(runs: Path) -> dict[str, Any]:
    result = report(runs, "--format", "json")
    assert result.exit_code == 0, result.output
    return dict(json.loads(result.stdout))


def part(page: str, letter: str) -> str:
    return page.split(f'<section id="{letter}">')[1].split("</section>", maxsplit=1)[0]


@pytest.fixture
def four(tmp_path: Path) -> Path:
    return write_the_four(tmp_path / "runs")


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The page of the four runs."""
    folder = tmp_path_factory.mktemp("four")
    return write_page(write_the_four(folder / "runs"), folder / "report")


@pytest.fixture(scope="module")
def crowded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The four runs, and beside them a second seed, shortcuts, other recipes and data, unfinished and strange ones."""
    folder = tmp_path_factory.mktemp("crowded")
    runs = write_the_four(folder / "runs")
    write_run(runs / "again", facts_of("plain20", 14.0, 16.0, seed=1))
    write_run(runs / "longer", facts_of("plain20", 1.0, 9.0, steps=64_000))
    for kind in ("B", "C"):
        facts = facts_of("resnet20", 9.0, 12.0, shortcut=kind)
        write_run(runs / kind, facts | {"recipe": facts["recipe"] | {"shortcut": kind}})
    facts = facts_of("resnet56", 50.0, 50.0)
    write_run(runs / "slow", facts | {"recipe": facts["recipe"] | {"learning_rate": 0.01}})
    pets = {"name": "pets", "source": "pets", "images": 300, "fingerprint": "g"}
    write_run(runs / "pets", facts_of("resnet20", 1.0, 2.0, labels=["cat", "dog"], dataset=pets))
    write_run(runs / "going", facts_of("plain20", 1.0, 1.0, finished=None, results=None, steps=64_000))
    write_run(runs / "<b>bold", facts | {"finished": None})
    write_run(runs / "strange", facts | {"recipe": {"name": "<script>|$x$"}})
    write_page(runs, folder / "report")
    return folder


@pytest.fixture(scope="module")
def crowded_page(crowded: Path) -> str:
    return (crowded / "report" / "report.html").read_text()


@pytest.fixture(scope="module")
def crowded_numbers(crowded: Path) -> dict[str, Any]:
    return numbers_of(crowded / "runs")


def test_the_four_runs_give_all_parts_and_only_the_other_shortcuts_are_missing(page: str) -> None:
    assert re.findall(r'<section id="(\w)">', page) == list(PARTS)
    assert [letter for letter in PARTS if "Missing" in part(page, letter)] == ["d"]
    assert part(page, "d").count("--set shortcut=") == 2 and part(page, "d").count("--steps 16000 ") == 2
    assert [part(page, letter).count("<svg") for letter in PARTS] == [4, 1, 2, 4, 6, 4, 0, 0]
    assert "Not in the comparisons" not in page


def test_the_figures_contain_every_series(page: str) -> None:
    plain, residual = part(page, "a").split("<svg")[1:3]
    for drawing, names in ((plain, ("plain-20", "plain-56")), (residual, ("ResNet-20", "ResNet-56"))):
        for name in names:
            assert f"{name} training</text>" in drawing and f"{name} test</text>" in drawing
        lines = re.findall(r'<g id="curves-[a-z]+-line_(\w+)">\s*<path d="([^"]*)"', drawing)
        expected = [f"{names[0]}_training_0", f"{names[0]}_test_0", f"{names[1]}_training_0", f"{names[1]}_test_0"]
        assert [name for name, _ in lines] == [name.replace("-", "").lower() for name in expected]
        assert {len(re.findall("[ML] ", path)) for _, path in lines} == {8}  # a point for each of eight evaluations
    for name in ("plain-20", "plain-56", "ResNet-20", "ResNet-56"):
        assert part(page, "c").count(f"{name}</text>") == 2
        assert part(page, "f").count(f"{name}</text>") == 1
    assert part(page, "f").count("step 8,000</text>") == 4
    assert "VGG-19</text>" in part(page, "e") and "19.6</text>" in part(page, "e")


def test_what_depth_did_is_computed_from_the_runs(page: str) -> None:
    assert "<strong>Figure 1. From 20 to 56 layers the final training error changes: that of" in part(page, "a")
    assert "that of the plain networks rises by 9.50 points" in part(page, "a")
    assert "that of the residual networks falls by 1.50 points" in part(page, "a")


def test_the_page_says_where_it_was_computed_and_that_one_seed_is_one_order_of_images(page: str) -> None:
    assert "Computed on a processor in fp32." in part(page, "a")
    assert "Runs of one seed see the same images in the same order." in part(page, "a")


def test_noise_is_that_of_the_second_seeds_where_there_are_any(page: str, crowded_page: str) -> None:
    assert "one seed of each network here" in part(page, "a")
    assert "± 1.41 points of training error and ± 0.71 of test error (plain-20)" in part(crowded_page, "a")
    for text in (page, crowded_page):
        assert "0.16 points of test error" in part(text, "a")


def test_the_answers_to_the_papers_questions_are_computed(page: str) -> None:
    for pair in ("ResNet-20&#x27;s median response is 100% of plain-20", "ResNet-56&#x27;s median response is 100%"):
        assert pair in part(page, "c")
    # Raw norms 0.735 and 0.481, and the last layer has four times the channels of the first: weights of twice the norm.
    assert "so many times the last layer&#x27;s: plain-20 1.47, plain-56 0.962, " in part(page, "f")
    assert "training error is 9.50 points above plain-20&#x27;s" in part(page, "a")
    assert "its gap 1.50 points against 3.00" in part(page, "a")


def test_a_network_that_was_not_run_is_named_where_it_is_missing(four: Path, tmp_path: Path) -> None:
    shutil.rmtree(four / "paper-plain56")
    page = write_page(four, tmp_path / "report")
    for letter in ("a", "c", "f"):
        text = part(page, letter)
        assert "Not run yet: plain-56." in text and "Missing: a finished run of plain-56 with" in text
    assert "of plain-56&#x27;s" not in part(page, "c") and "plain-56" not in part(page, "f").split("<svg")[1]
    assert page.count('class="claim not-measured"') == 4  # three claims on plain-56, and the shortcuts


def test_images_that_were_held_out_are_not_counted_as_trained_on(tmp_path: Path) -> None:
    write_run(tmp_path / "runs" / "some", facts_of("plain20", 1.0, 9.0, held_out=list(range(2_000))))
    assert "cifar10, 48,000 of 50,000" in part(write_page(tmp_path / "runs", tmp_path / "report"), "b")
    [run] = numbers_of(tmp_path / "runs")["runs"]
    assert (run["images"], run["held_out_images"]) == (50_000, 2_000)


def test_seeds_of_the_shortcuts_are_said(crowded_page: str) -> None:
    assert "ResNet-20 with A (seed 0), B (seed 0), C (seed 0)" in part(crowded_page, "d")


def test_the_page_refers_to_nothing_outside_itself(page: str) -> None:
    assert "://" not in page and "@import" not in page
    assert "default-src 'none'" in page
    parser = _References()
    parser.feed(page)
    assert parser.targets and parser.targets <= set(parser.ids)
    assert len(parser.ids) == len(set(parser.ids)), "an identifier is there twice"


class _References(HTMLParser):
    """Collects identifiers, and what refers to them."""

    def __init__(self) -> None:
        super().__init__()
        self.ids: list[str] = []
        self.targets: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if name == "id":
                self.ids.append(value or "")
            elif name in ("src", "href", "xlink:href"):
                assert value and value.startswith(("#", "data:")), (tag, name, value)
                if value.startswith("#"):
                    self.targets.add(value[1:])
            self.targets |= set(re.findall(r"url\(#([^)]*)\)", value or ""))


def test_the_same_runs_give_the_same_bytes(page: str, four: Path, tmp_path: Path) -> None:
    assert write_page(four, tmp_path / "report") == page


def test_the_numbers_are_those_of_the_runs(four: Path) -> None:
    numbers = numbers_of(four)
    runs = {run["network"]: run for run in numbers["runs"]}
    assert runs.keys() == {"plain-20", "plain-56", "resnet-20", "resnet-56"}
    for network, (train_error, test_error) in FOUR.items():
        run = next(run for name, run in runs.items() if name.replace("-", "") == network)
        assert (run["train_error"], run["test_error"]) == (train_error, test_error)
        assert (run["steps"], run["full_steps"], run["seed"]) == (16_000, 64_000, 0)
        assert run["recipe"] == f"paper-{network}"
    assert [runs[name]["shortcut"] for name in ("plain-56", "resnet-56")] == [None, "A"]
    assert [runs[name]["paper_error"] for name in ("plain-56", "resnet-20", "resnet-56")] == [None, 8.75, 6.97]
    first = numbers["degradation"]["differences"][0]
    assert (first["network"], first["against"], first["train_error"]) == ("plain-56", "plain-20", 9.5)
    assert len(numbers["layer_responses"]["plain-56"]) == 55
    assert list(numbers["gradient_norms"]["resnet-20"]) == ["1", "8000", "16000"]
    resnet34 = next(row for row in numbers["costs"] if row["network"] == "resnet-34" and row["shortcut"] == "A")
    assert resnet34["multiply_adds_relative_to_vgg19"] == pytest.approx(0.186, abs=0.001)
    assert numbers["unfinished"] == numbers["broken"] == []


def test_json_writes_files_only_to_the_given_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_run(tmp_path / "runs" / "one", facts_of("resnet32", 1.0, 2.0, gradient_norms={}, layer_responses={}))
    assert numbers_of(tmp_path / "runs")["runs"] and not (tmp_path / "report").exists()
    result = report(tmp_path / "runs", "--format", "json", "--out", "there")
    assert json.loads(result.stdout)["runs"] and (tmp_path / "there" / "report.html").exists()


def test_seeds_become_a_mean_and_a_sample_standard_deviation(
    crowded_page: str, crowded_numbers: dict[str, Any]
) -> None:
    summary = crowded_numbers["summaries"][0]
    assert (summary["network"], summary["seeds"]) == ("plain-20", [0, 1])
    assert summary["train_error"] == {"mean": 13.0, "sd": 1.4142, "n": 2}
    assert "13.00 ± 1.41" in part(crowded_page, "b") and "plain-20 (seeds 0, 1)" in part(crowded_page, "a")


def test_two_runs_of_one_seed_count_as_one(tmp_path: Path) -> None:
    for name, error in (("a", 12.0), ("b", 12.0)):
        write_run(tmp_path / "runs" / name, facts_of("plain20", error, 15.0))
    write_run(tmp_path / "runs" / "c", facts_of("plain20", 14.0, 16.0, seed=1))
    (summary,) = numbers_of(tmp_path / "runs")["summaries"]
    assert summary["seeds"] == [0, 1] and summary["train_error"] == {"mean": 13.0, "sd": 1.4142, "n": 2}


def test_a_shortened_run_is_called_that_and_a_whole_one_is_not(page: str, tmp_path: Path) -> None:
    assert "16,000 of 64,000 steps (25%)" in part(page, "a") and "The runs are shortened" in part(page, "a")
    assert "reproduction" not in page.lower() and "(full length)" not in part(page, "b")
    write_run(tmp_path / "full" / "plain20", facts_of("plain20", 1.0, 9.0, steps=64_000))
    whole = write_page(tmp_path / "full", tmp_path / "report")
    assert "shortened" not in part(whole, "a") and "64,000 steps (full length)" in part(whole, "b")


def test_only_equal_budgets_recipes_and_images_are_compared(crowded_numbers: dict[str, Any]) -> None:
    assert crowded_numbers["degradation"]["steps"] == 16_000
    differences = {
        (row["network"], row["against"]): row["train_error"] for row in crowded_numbers["degradation"]["differences"]
    }
    assert differences == {
        ("plain-56", "plain-20"): 8.5,
        ("resnet-56", "resnet-20"): -1.5,
        ("plain-20", "resnet-20"): 2.5,
        ("plain-56", "resnet-56"): 12.5,
    }
    assert {row["steps"] for row in crowded_numbers["summaries"] if row["network"] == "plain-20"} == {16_000, 64_000}


def test_a_changed_recipe_is_listed_with_its_change(crowded_page: str, crowded_numbers: dict[str, Any]) -> None:
    slow = next(run for run in crowded_numbers["runs"] if run["name"] == "slow")
    assert slow["changed"] == {"learning_rate": 0.01}
    assert "paper-resnet56, learning_rate=0.01" in part(crowded_page, "b")


def test_another_data_set_has_no_number_in_the_paper(crowded_numbers: dict[str, Any]) -> None:
    assert next(run for run in crowded_numbers["runs"] if run["name"] == "pets")["paper_error"] is None
    assert next(row for row in crowded_numbers["summaries"] if row["dataset"] == "pets")["published"] == []


def test_shortcuts_are_compared_when_all_three_were_run(crowded_page: str, crowded_numbers: dict[str, Any]) -> None:
    shortcuts = part(crowded_page, "d")
    assert "Missing" not in shortcuts and shortcuts.count("<td>12.00</td>") == 2
    rows = [row for row in crowded_numbers["shortcuts"]["networks"] if row["network"] == "resnet-20"]
    assert [(row["shortcut"], row["parameters"]) for row in rows] == [("A", 269_722), ("B", 272_474), ("C", 283_962)]
    assert [row["test_error"]["mean"] for row in rows] == [13.5, 12.0, 12.0]


def test_without_runs_every_part_says_which_commands_make_them(tmp_path: Path) -> None:
    (tmp_path / "runs").mkdir()
    page = write_page(tmp_path / "runs", tmp_path / "report")
    for letter in PARTS:
        assert ("Missing" in part(page, letter)) == (letter not in "egh")
    for network in FOUR:
        assert f"train-resnet run --recipe paper-{network} --data" in part(page, "a")


def test_a_run_without_curves_norms_or_responses_is_asked_for_where_they_are_needed(tmp_path: Path) -> None:
    write_run(tmp_path / "runs" / "old", facts_of("plain20", 12.0, 15.0, gradient_norms={}, layer_responses={}))
    (tmp_path / "runs" / "old" / "metrics.jsonl").unlink()
    page = write_page(tmp_path / "runs", tmp_path / "report")
    assert [letter for letter in PARTS if "--recipe paper-plain20 " in part(page, letter)] == ["c", "f"]


def test_unfinished_runs_are_listed_as_such_and_count_nowhere(
    crowded_page: str, crowded_numbers: dict[str, Any]
) -> None:
    unfinished = {run["name"]: (run["step"], run["steps"]) for run in crowded_numbers["unfinished"]}
    assert unfinished == {"going": (16_000, 64_000), "<b>bold": (16_000, 16_000)}
    assert "going" not in {run["name"] for run in crowded_numbers["runs"]}
    assert "going is not finished: paper-plain20, 16,000 of 64,000 steps so far" in crowded_page


BROKEN = {
    "there is no run.json": None,
    "run.json has no usable content": "{",
    "run.json has no usable results.train.top1": json.dumps(
        facts_of("plain20", 1.0, 1.0) | {"results": {"train": {"top1": None, "images": 1}}}
    ),
    "run.json has no usable steps": json.dumps(facts_of("plain20", 1.0, 1.0, steps=0)),
    "run.json has no usable recipe.name": json.dumps(facts_of("plain20", 1.0, 1.0, recipe={})),
    "no network has 21 layers": json.dumps(facts_of("plain20", 1.0, 1.0) | {"network": "plain21"}),
}


def test_each_broken_folder_is_one_line_and_skipped(tmp_path: Path) -> None:
    for number, content in enumerate(BROKEN.values()):
        (tmp_path / "runs" / f"run-{number}").mkdir(parents=True)
        if content is not None:
            (tmp_path / "runs" / f"run-{number}" / "run.json").write_text(content)
    result = report(tmp_path / "runs", "--out", str(tmp_path / "report"))
    assert result.exit_code == 0
    page, lines = (tmp_path / "report" / "report.html").read_text(), result.stderr.splitlines()
    assert len(lines) == len(BROKEN) + 1
    for number, reason in enumerate(BROKEN):
        assert lines[number].startswith(f"run-{number} is skipped: {reason}")
        assert f"run-{number} is skipped: {reason}" in page
    assert [row["name"] for row in numbers_of(tmp_path / "runs")["broken"]] == [f"run-{n}" for n in range(len(BROKEN))]


def test_half_a_line_at_the_end_of_a_killed_run_is_left_out_and_a_bad_one_skips_the_run(four: Path) -> None:
    metrics = four / "paper-plain20" / "metrics.jsonl"
    metrics.write_text(metrics.read_text() + '{"step": 17')
    assert numbers_of(four)["broken"] == []
    metrics.write_text(metrics.read_text() + "\n")
    assert numbers_of(four)["broken"] == [{"name": "paper-plain20", "reason": "metrics.jsonl has no usable content"}]


def test_names_of_runs_and_recipes_cannot_change_the_page(crowded: Path, crowded_page: str) -> None:
    assert "<b>" not in crowded_page and "<script>|" not in crowded_page
    assert "&lt;script&gt;|$x$" in crowded_page and "&lt;b&gt;bold is not finished" in crowded_page
    assert "<script>\\|$x$" in (crowded / "report" / "report.md").read_text()


def test_the_markdown_has_a_table_of_all_runs(crowded: Path) -> None:
    lines = (crowded / "report" / "report.md").read_text().splitlines()
    rows = [line for line in lines if line.startswith("| plain-56 | - | 21.50 | 23.00 | - | 16,000 of 64,000 steps")]
    assert len(rows) == 1 and "| paper-plain56 | cifar10, 50,000 |" in rows[0]
    assert {line.count(" | ") for line in lines if line.startswith("|") and "paper-" in line} == {8}


def test_what_cannot_be_read_or_written_is_one_line_that_names_the_next_step(four: Path, tmp_path: Path) -> None:
    nowhere = report(tmp_path / "nowhere", "--format", "json")
    assert nowhere.exit_code == 1 and "--runs" in nowhere.stderr and len(nowhere.stderr.splitlines()) == 1
    (tmp_path / "file").write_text("")
    for out in (tmp_path / "file", four / "inside"):
        result = report(four, "--out", str(out))
        assert result.exit_code == 1 and "--out" in result.stderr and len(result.stderr.splitlines()) == 1
