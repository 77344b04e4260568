"""The tables of the pages follow from the runs in the CSV files beside them."""

from __future__ import annotations

from pathlib import Path

import figures
import measured
import pytest
from matplotlib.figure import Figure
from placeholders import names

from lockdec.report.tables import results_csv

PAGES = [page for page in figures.pages() if set(names(page.read_text(encoding="utf-8"))) & set(measured.PARTS)]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_page_filled_again_from_its_runs_stays_what_it_is(page: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Figure, "savefig", lambda *_, **__: None)  # figures stay those that are committed
    text, runs = measured.filled(page, measured.results(page))
    assert runs
    assert text == page.read_text(encoding="utf-8")


def test_what_results_csv_writes_is_read_again(tmp_path: Path) -> None:
    runs = measured.read_csv(measured.results(next(page for page in PAGES if page.name == "how_long.md")))
    written = tmp_path / "again.csv"
    written.write_text(results_csv(runs), encoding="utf-8")
    assert measured.read_csv(written) == runs
