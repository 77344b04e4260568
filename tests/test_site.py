"""The site of README.md, docs/ and the docstrings: built strictly, and used in a browser without a network."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from mkdocs.commands.build import build
from mkdocs.config import load_config
from selenium.webdriver.common.by import By

from tests.report.test_browser import CHROMIUM, DESKTOP, PHONE, Page, page

__all__ = ["page"]  # the fixture

ROOT = Path(__file__).parents[1]
in_a_browser = pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed (apt-get install chromium)")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site; a broken link, a missing page or a docstring that cannot be read would end the build."""
    folder = tmp_path_factory.mktemp("site")
    build(load_config(str(ROOT / "mkdocs.yml"), site_dir=str(folder), strict=True))
    return folder


def test_it_has_the_pages_the_reference_and_the_lecture(site: Path) -> None:
    assert "Two commands" in (site / "index.html").read_text()
    for source in (ROOT / "docs").rglob("*.md"):
        assert (site / source.relative_to(ROOT / "docs").with_suffix(".html")).exists(), source
    models = (site / "reference" / "models.html").read_text()
    assert 'id="lockdec.transformer.locking.LockingDecoderModel"' in models
    lecture = (site / "lecture.html").read_text()
    assert "largest difference just after unlocking: 0.0" in lecture
    assert (site / "lecture-1.png").read_bytes().startswith(b"\x89PNG")


def test_every_page_is_reached_from_the_first(site: Path) -> None:
    first = (site / "index.html").read_text()
    for found in site.rglob("*.html"):
        place = found.relative_to(site).as_posix()
        assert f'href="{place}"' in first or place in ("index.html", "404.html"), place


def test_no_page_loads_anything_from_another_host(site: Path) -> None:
    for found in site.rglob("*.html"):
        loaded = re.findall(r'<(?:script|img|iframe)[^>]*\ssrc="([^"]*)"|<link[^>]*\shref="([^"]*)"', found.read_text())
        for places in loaded:
            assert not "".join(places).startswith(("http:", "https:", "//")), found


@in_a_browser
@pytest.mark.parametrize("screen", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_the_figure_of_the_idea_shows_that_only_training_changes_logits(
    page: Page, site: Path, screen: tuple[int, int, bool]
) -> None:
    width, height, mobile = screen
    size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": mobile}
    page.chrome.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    page.complaints()
    page.requests()
    page.chrome.get((site / "idea.html").as_uri())
    page.wait("return document.querySelector('.locking-states button')?.innerText")

    def shown(state: str, cell: int) -> tuple[str, list[str]]:
        buttons = page.chrome.find_elements(By.CSS_SELECTOR, ".locking-states button")
        next(button for button in buttons if button.text == state).click()
        page.chrome.find_elements(By.CSS_SELECTOR, ".locking-grid button")[cell].click()
        difference = page.chrome.find_element(By.CSS_SELECTOR, ".locking output").text.rsplit(": ", 1)[1]
        shares = page.chrome.find_elements(By.CSS_SELECTOR, ".locking-bar span:last-child")
        return difference, [share.text for share in shares if share.text]

    difference, locked = shown("locked", 0)
    assert difference == "0."
    for state in ("attached", "unlocked"):
        assert shown(state, 3) == ("0.", locked)
    difference, trained = shown("finetuned", 8)
    assert float(difference.rstrip(".")) > 1
    assert trained != locked
    assert page.run("return document.documentElement.scrollWidth") <= width
    assert page.complaints() == []
    assert {url.split(":")[0] for url in page.requests()} <= {"file", "data", "blob"}


@in_a_browser
def test_search_works_on_files(page: Page, site: Path) -> None:
    page.chrome.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    page.chrome.set_window_size(1400, 900)
    page.complaints()
    page.chrome.get((site / "index.html").as_uri())
    page.wait("return !document.querySelector('.md-search').hidden")
    page.chrome.find_element(By.CSS_SELECTOR, ".md-search__input").send_keys("nearest_neighbour")
    page.wait("return document.querySelectorAll('.md-search-result__item').length > 0")
    assert page.complaints() == []


@in_a_browser
def test_wide_tables_scroll_and_break_neither_names_nor_intervals(page: Page, site: Path) -> None:
    size = {"width": PHONE[0], "height": PHONE[1], "deviceScaleFactor": 1, "mobile": True}
    page.chrome.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    page.chrome.get((site / "study" / "rivals.html").as_uri())
    assert page.run("return document.documentElement.scrollWidth") <= PHONE[0]
    assert page.run("return document.querySelectorAll('td code').length") > 9
    broken = "return [...document.querySelectorAll('td code')].filter((name) => name.getClientRects().length > 1)"
    assert page.run(f"{broken}.map((name) => name.textContent)") == []
    intervals = re.findall(r"\[[+\u2212]?0\.\d+,(.)[+\u2212]?0\.\d+\]", (site / "study" / "rivals.html").read_text())
    assert set(intervals) == {"\u00a0"}


@in_a_browser
def test_dark_and_light_follow_the_system_on_every_visit(page: Page, site: Path) -> None:
    for scheme, name in (("light", "default"), ("dark", "slate")):
        page.prefer(scheme)
        page.chrome.get((site / "index.html").as_uri())
        page.wait(f"return document.body.dataset.mdColorScheme === '{name}'")
