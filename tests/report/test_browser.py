"""The report in a real headless Chromium: nothing goes wrong, nothing is fetched, what should move moves."""

from __future__ import annotations

import json
import re
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from selenium.webdriver import Chrome, ChromeOptions
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.select import Select

from lockdec.report.page import write_report
from tests.report.runs import result, write_run, write_sweep
from tests.report.test_page import NASTY, png

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed (apt-get install chromium)")

UNKNOWN = "\u2013"
MICROPHONE = ("--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream")  # it hears a beep, unasked
DESKTOP, PHONE = (1280, 900, False), (390, 844, True)


class Page:
    """A browser with a report open in it."""

    def __init__(self, chrome: Chrome) -> None:
        self.chrome = chrome

    def open(self, report: Path, screen: tuple[int, int, bool] = DESKTOP, dark: bool = False) -> None:
        width, height, mobile = screen
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": mobile}
        self.chrome.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        self.prefer("dark" if dark else "light")
        self.log("browser")
        self.log("performance")
        self.chrome.get(report.as_uri())
        self.wait("return document.documentElement.dataset.ready === 'true'")

    def prefer(self, scheme: str) -> None:
        feature = {"name": "prefers-color-scheme", "value": scheme}
        self.chrome.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})

    def run(self, script: str, *arguments: Any) -> Any:
        return self.chrome.execute_script(script, *arguments)

    def wait(self, script: str, seconds: float = 30) -> None:
        end = time.monotonic() + seconds
        while not self.run(script):
            assert time.monotonic() < end, f"still not true: {script}"
            time.sleep(0.05)

    def log(self, kind: str) -> list[dict[str, str]]:
        """What the browser has logged since this was last asked."""
        return list(self.chrome.execute("getLog", {"type": kind})["value"])

    def complaints(self) -> list[str]:
        return [entry["message"] for entry in self.log("browser")]

    def requests(self) -> list[str]:
        events = [json.loads(entry["message"])["message"] for entry in self.log("performance")]
        return [e["params"]["request"]["url"] for e in events if e["method"] == "Network.requestWillBeSent"]

    def column(self, table: str, heading: str, shown: bool = True) -> list[str]:
        """The texts of a column, without hidden rows."""
        script = """
            const table = document.querySelector(arguments[0]);
            const headings = [...table.tHead.rows[0].cells].map((cell) => cell.textContent.trim());
            const place = headings.indexOf(arguments[1]);
            const rows = [...table.tBodies[0].rows].filter((row) => !row.hidden);
            return rows.map((row) => row.cells[place].textContent.trim());
        """
        return list(self.run(script, table, heading))

    def heading(self, table: str, heading: str) -> Any:
        buttons = self.chrome.find_elements(By.CSS_SELECTOR, f"{table} thead button")
        return next(button for button in buttons if button.get_attribute("textContent") == heading)

    def plotted(self, figure: str, view: str) -> list[dict[str, Any]]:
        script = """
            const [figure, view] = arguments;
            const panel = document.querySelector(`[data-figure="${figure}"][data-view="${view}"]`);
            return JSON.parse(JSON.stringify(panel.data));
        """
        return list(self.run(script, figure, view))


@pytest.fixture(scope="module")
def page() -> Iterator[Page]:
    driver = shutil.which("chromedriver")
    if driver is None:
        pytest.skip("chromium is installed without its driver (apt-get install chromium-driver)")
    options = ChromeOptions()
    options.binary_location = str(CHROMIUM)
    for flag in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", *MICROPHONE):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    chrome = Chrome(options=options, service=Service(driver))
    yield Page(chrome)
    chrome.quit()


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sweep with a tied line, a grid, two encoders, a setting of one seed and a failed cell."""
    folder = write_sweep(tmp_path_factory.mktemp("browser") / "s")
    write_sweep(folder, tuple((a, a, b) for a in (1, 2) for b in (1, 2, 4) if a != b), (16, 256), first=100)
    write_sweep(folder, ((8, 8, 8),), (256,), first=200, encoder="vae")
    write_sweep(folder, ((16, 16, 16),), (256,), seeds=(0,), first=300)
    write_run(folder / "400", result((8, 8, 8), 256, 0), picture=png(32, 32))
    write_run(folder / "500", result(status="failed", error="out of memory", metrics={}), extras=False)
    write_report([folder])
    return folder


@pytest.mark.parametrize("screen", [DESKTOP, PHONE], ids=["desktop", "phone"])
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_it_opens_without_complaints_requests_or_sideways_scrolling(
    page: Page, sweep: Path, screen: tuple[int, int, bool], dark: bool
) -> None:
    page.open(sweep / "report.html", screen, dark)
    assert page.complaints() == []
    assert {url.split(":")[0] for url in page.requests()} <= {"file", "data", "blob"}
    assert page.run("return document.documentElement.scrollWidth") <= screen[0]
    assert page.run("return [...document.querySelectorAll('[data-figure]')].every((p) => p.querySelector('svg'))")


def test_figures_show_the_numbers_of_results_json(page: Page, sweep: Path) -> None:
    page.open(sweep / "report.html")
    settings = json.loads((sweep / "results.json").read_text())["settings"]
    known = {
        (setting["cross_attention.d_k"], setting["fewshot.shots"]): setting["estimates"]
        for setting in settings
        if len({setting[f"cross_attention.d_{name}"] for name in "qkv"}) == 1 and setting["encoder.name"] != "vae"
    }

    def check(view: str, estimates: str, metric: str) -> None:
        lines = {trace["name"]: trace for trace in page.plotted("dimension", view)}
        trace = next(trace for name, trace in lines.items() if "256 shots" in name and "vae" not in name)
        for d, y, plus, minus in zip(
            (1, 2, 4, 8), trace["y"], trace["error_y"]["array"], trace["error_y"]["arrayminus"], strict=False
        ):
            estimate = known[d, 256][metric][estimates]
            assert y == pytest.approx(estimate["mean"], abs=2e-5)
            assert y + plus == pytest.approx(estimate["high"], abs=4e-5)
            assert y - minus == pytest.approx(estimate["low"], abs=4e-5)

    check("score", "score", "token_f1")
    check("control", "prior", "token_f1")
    Select(page.chrome.find_element(By.ID, "metric")).select_by_value("cider_d")
    Select(page.chrome.find_element(By.ID, "control")).select_by_value("nearest_neighbour")
    check("score", "score", "cider_d")
    check("control", "nearest_neighbour", "cider_d")
    panel = page.chrome.find_element(By.CSS_SELECTOR, "[data-figure=dimension][data-view=control]")
    assert "CIDEr-D, gap over nearest_neighbour" in str(panel.get_attribute("aria-label"))


def test_one_seed_has_an_open_marker_and_no_whisker(page: Page, sweep: Path) -> None:
    page.open(sweep / "report.html")
    trace = next(t for t in page.plotted("dimension", "score") if "256 shots" in t["name"] and "vae" not in t["name"])
    assert [symbol.endswith("-open") for symbol in trace["marker"]["symbol"]] == [False] * 4 + [True]
    assert trace["error_y"]["array"][-1] is None
    assert "no interval" in trace["text"][-1]


@pytest.mark.parametrize("screen", [DESKTOP, (800, 900, False), PHONE], ids=["desktop", "tablet", "phone"])
def test_no_name_in_a_figure_is_left_out_or_cut_off(page: Page, tmp_path: Path, screen: tuple[int, int, bool]) -> None:
    """Nine bridges, with learning curves, whose names are long."""
    kinds = ["lora", "full", "resampler", *(f"retrieval_cross_attention_{number}" for number in range(6))]
    for number, (kind, shots) in enumerate((kind, shots) for kind in kinds for shots in (16, 256)):
        typed = (f"bridge={kind}", f"fewshot.shots={shots}")
        write_run(
            tmp_path / str(number), result(shots=shots, overrides=typed, bridge={"kind": kind, "wanted": 400_000})
        )
    page.open(write_report([tmp_path]).report, screen)
    assert page.run("return document.querySelectorAll('[data-figure]').length") > 6
    for text in ("legendtext", "xtick", "ytick"):
        outside = page.run(
            """
            return [...document.querySelectorAll("[data-figure]")].flatMap((panel) => {
              const box = panel.getBoundingClientRect();
              return [...panel.querySelectorAll(`.${arguments[0]}`)].filter((text) => {
                const { left, right, bottom } = text.getBoundingClientRect();
                return left < box.left - 1 || right > box.right + 1 || bottom > box.bottom + 1;
              }).map((text) => `${panel.dataset.figure}: ${text.textContent}`);
            });
            """,
            text,
        )
        assert outside == [], text
    ticks = "[...document.querySelectorAll('[data-figure=choice-11] .ytick')].map((tick) => tick.textContent)"
    shown = page.run(f"return {ticks}")
    assert sorted(shown) == sorted([*kinds, *kinds]), "once in each panel"
    offered = "return document.querySelector(`select[data-column=${arguments[0]}]`).checkVisibility()"
    assert page.run(offered, "bridge")
    assert not page.run(offered, "d_q"), "all cells have the same: nothing to choose"


@pytest.mark.parametrize("metric", ["token_f1", "chrf", "loss"])
def test_what_is_plotted_is_valid_plotly(page: Page, sweep: Path, metric: str) -> None:
    from plotly.graph_objects import Figure

    page.open(sweep / "report.html")
    Select(page.chrome.find_element(By.ID, "metric")).select_by_value(metric)
    panels = page.run("""
        const panels = [...document.querySelectorAll("[data-figure]")];
        return JSON.stringify(panels.map((panel) => [panel.data, panel.layout]));
    """)
    for data, layout in json.loads(panels):
        Figure(data=data, layout=layout)
    assert page.complaints() == []


def test_a_heading_sorts_both_ways_with_unknown_values_last(page: Page, sweep: Path) -> None:
    page.open(sweep / "report.html")
    heading = page.heading("#cells-table", "token F1")
    heading.click()
    rising = page.column("#cells-table", "token F1")
    assert rising[-1] == UNKNOWN
    numbers = [float(text) for text in rising[:-1]]
    assert numbers == sorted(numbers)
    assert heading.find_element(By.XPATH, "..").get_attribute("aria-sort") == "ascending"
    heading.click()
    falling = page.column("#cells-table", "token F1")
    assert falling[-1] == UNKNOWN
    assert [float(text) for text in falling[:-1]] == numbers[::-1]
    assert page.run("return document.querySelectorAll('#cells-table [aria-sort]').length") == 1


def test_numbers_in_text_sort_as_numbers(page: Page, sweep: Path) -> None:
    page.open(sweep / "report.html")
    page.heading("#cells-table", "cell").click()
    page.heading("#cells-table", "cell").click()
    labels = [int(text.split("/")[1]) for text in page.column("#cells-table", "cell")]
    assert labels == sorted(labels)


def test_the_keyboard_alone_sorts(page: Page, sweep: Path) -> None:
    page.open(sweep / "report.html")
    heading = page.heading("#cells-table", "shots")
    page.run("arguments[0].focus()", heading)
    page.chrome.switch_to.active_element.send_keys(Keys.ENTER)
    shots = [int(text) for text in page.column("#cells-table", "shots")]
    assert shots == sorted(shots)
    assert page.run("return getComputedStyle(document.activeElement).outlineStyle") == "solid"


def test_the_first_tab_offers_to_skip_to_the_findings(page: Page, sweep: Path) -> None:
    page.open(sweep / "report.html")
    page.chrome.find_element(By.TAG_NAME, "body").send_keys(Keys.TAB)
    assert str(page.chrome.switch_to.active_element.get_attribute("href")).endswith("#main")


def test_filters_by_words_and_by_choice_combine(page: Page, sweep: Path) -> None:
    page.open(sweep / "report.html")
    total = len(page.column("#cells-table", "cell"))
    words = page.chrome.find_element(By.CSS_SELECTOR, "input[data-filters=cells-table]")
    shots = Select(page.chrome.find_element(By.CSS_SELECTOR, "select[data-column=shots]"))
    shots.select_by_value("16")
    assert set(page.column("#cells-table", "shots")) == {"16"}
    words.send_keys("d_k=2 SEED=1")
    left = page.column("#cells-table", "cell")
    assert 0 < len(left) < total
    assert set(page.column("#cells-table", "seed")) == {"1"}
    count = page.chrome.find_element(By.CSS_SELECTOR, "output[data-count=cells-table]").text
    assert count == f"{len(left)} of {total} rows"
    shots.select_by_value("")
    words.clear()
    words.send_keys("memory")
    assert page.column("#cells-table", "status") == ["failed"]


def test_dark_and_light_follow_the_system_while_open(page: Page, sweep: Path) -> None:
    page.open(sweep / "report.html")
    script = """
        const panel = document.querySelector("[data-figure]");
        const ground = getComputedStyle(document.body).backgroundColor;
        return [ground, panel.layout.font.color, panel.data[0].line.color];
    """
    light = page.run(script)
    page.prefer("dark")
    page.wait("return document.querySelector('[data-figure]').layout.font.color === '#e7ebef'")
    dark = page.run(script)
    assert light == ["rgb(255, 255, 255)", "#1b2026", "#0072b2"]
    assert dark == ["rgb(20, 24, 28)", "#e7ebef", "#56b4e9"]


def test_what_files_say_never_runs(page: Page, tmp_path: Path) -> None:
    nasty = result(overrides=(f"stages.finetune.note={NASTY}",), name=NASTY, command=NASTY)
    nasty["encoder"]["name"] = NASTY
    write_run(tmp_path / "s<b>" / "0", nasty, captions={"x": NASTY})
    chosen = result((4, 4, 4), overrides=(f"encoder={NASTY}",))
    write_run(tmp_path / "s<b>" / "1", chosen, captions={"x": NASTY})
    write_run(tmp_path / "s<b>" / "2", result((2, 2, 2)), captions={"x": NASTY})
    for folder in (tmp_path / "s<b>" / "0", tmp_path / "s<b>"):
        page.open(write_report([folder]).report)
        assert page.run("return typeof hacked") == "undefined"
        assert page.run("return document.querySelectorAll('img[src=x], b').length") == 0
        assert page.complaints() == []
    legends = page.run("return [...document.querySelectorAll('.legendtext')].map((text) => text.textContent)")
    assert any("<script>hacked=1" in legend and "&lt;{{7*7}}" in legend for legend in legends)


def test_the_report_of_a_run_opens_too(page: Page, tmp_path: Path) -> None:
    write_run(tmp_path / "run", picture=png(32, 32))
    page.open(write_report([tmp_path / "run"]).report, PHONE)
    assert page.complaints() == []
    assert page.run("return [...document.images].every((image) => image.naturalWidth === 32)")
    assert [trace["name"] for trace in page.plotted("curve-0", "given")] == ["train/loss", "val/loss"]
    hints = page.run("return [...document.querySelectorAll('.hint:not([hidden])')].map((hint) => hint.textContent)")
    assert re.fullmatch("[1-4] more columns? to the right \u2192", hints[0]), "of the metrics"
    assert page.run("return document.documentElement.scrollWidth") <= PHONE[0]
