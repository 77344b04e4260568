"""The tables of the pages follow from the runs in the CSV files beside them."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import figures
import measured
import pytest
from matplotlib.figure import Figure
from placeholders import names

from lockdec.report.study import Study
from lockdec.report.tables import results_csv
from tests.conftest import TinyRun

PAGES = [page for page in figures.pages() if set(names(page.read_text(encoding="utf-8"))) & set(measured.PARTS)]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_page_filled_again_from_its_runs_stays_what_it_is(page: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Figure, "savefig", lambda *_, **__: None)  # figures stay those that are committed
    text, runs = measured.filled(page, measured.results(page))
    assert runs
    assert text == page.read_text(encoding="utf-8")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_no_folder_of_the_machine_that_measured_is_in_a_csv_file(page: Path) -> None:
    found = re.findall(
        r"(?:^|[=, '\"])(/\w[^ ,'\"]*)", measured.results(page).read_text(encoding="utf-8"), re.MULTILINE
    )
    assert not found, "write the paths of sweeps as they are with paths.outputs=outputs"


def test_what_results_csv_writes_is_read_again(tmp_path: Path) -> None:
    runs = measured.read_csv(measured.results(next(page for page in PAGES if page.name == "how_long.md")))
    written = tmp_path / "again.csv"
    written.write_text(results_csv(runs), encoding="utf-8")
    assert measured.read_csv(written) == runs


def test_a_new_sweep_joins_those_measured_before(
    tiny: TinyRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And takes the place of those of its own name."""
    labels: list[list[str]] = []

    def part(study: Study) -> dict[str, str]:
        labels.append([run.label for run in study.runs])
        return {"steps": "| a |"}

    monkeypatch.setattr(measured, "commit", lambda: "1234567")
    monkeypatch.setattr(measured, "PARTS", {"steps": ("steps*", part)})
    page = tmp_path / "page.md"
    page.write_text("<!-- steps -->\n<!-- end -->\n", encoding="utf-8")
    for sweep in ("steps", "steps_more", "steps", "other"):
        shutil.copytree(tiny.folder, tmp_path / sweep / sweep / str(len(labels)))
        measured.main(page, tmp_path / sweep)
        shutil.rmtree(tmp_path / sweep)
    assert labels == [
        ["steps/0"],
        ["steps_more/1", "steps/0"],
        ["steps/2", "steps_more/1"],
        ["steps/2", "steps_more/1"],
    ]
