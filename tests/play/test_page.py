"""The page in a real headless Chromium: what people do on it, on a desk and on a phone, in light and in dark."""

from __future__ import annotations

import os
import shutil
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from selenium.webdriver import Chrome, ChromeOptions
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.support.select import Select

from lockdec.errors import visible
from lockdec.play.__main__ import address, listening
from lockdec.play.player import Player
from lockdec.play.server import application

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed (apt-get install chromium)")

DESKTOP, PHONE = (1280, 900, False), (375, 812, True)
NASTY = "<img src=x onerror=hacked=1><script>hacked=1</script>"


class Page:
    """A browser with the page open in it."""

    def __init__(self, chrome: Chrome, url: str) -> None:
        self.chrome, self.url = chrome, url

    def open(self, screen: tuple[int, int, bool] = DESKTOP, dark: bool = False, captioner: int = 0) -> None:
        width, height, mobile = screen
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": mobile}
        self.chrome.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.chrome.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})
        self.complaints()
        self.chrome.get(self.url)
        self.wait("return document.documentElement.dataset.ready === 'true'")
        if captioner:
            Select(self.one("#captioner")).select_by_index(captioner)

    def run(self, script: str, *arguments: Any) -> Any:
        return self.chrome.execute_script(script, *arguments)

    def wait(self, script: str, seconds: float = 60) -> None:
        end = time.monotonic() + seconds
        while not self.run(script):
            assert time.monotonic() < end, f"still not true: {script}"
            time.sleep(0.05)

    def complaints(self) -> list[str]:
        """What the browser has complained about since this was last asked."""
        return [entry["message"] for entry in self.chrome.execute("getLog", {"type": "browser"})["value"]]

    def one(self, selector: str) -> Any:
        return self.chrome.find_element(By.CSS_SELECTOR, selector)

    def all(self, selector: str) -> list[Any]:
        return list(self.chrome.find_elements(By.CSS_SELECTOR, selector))

    def texts(self, selector: str) -> list[str]:
        return [element.text for element in self.all(selector)]

    def answered(self) -> str:
        """The caption, once it is there."""
        self.wait("return !document.querySelector('#result').hidden && !document.querySelector('#said[aria-busy]')")
        return " ".join(self.texts("#caption span"))

    def refused(self) -> str:
        """The line that says what is wrong, once it is there."""
        self.wait("return !document.querySelector('#problem').hidden")
        return str(self.one("#problem").text)


@pytest.fixture(scope="module")
def url(players: Mapping[str, Player]) -> Iterator[str]:
    """The address of a server in a thread of this process."""
    with listening("127.0.0.1", 0) as listener:
        app = application(list(players.values()), "127.0.0.1")
        server = uvicorn.Server(uvicorn.Config(app, lifespan="off", log_level="warning"))
        thread = threading.Thread(target=server.run, args=([listener],))
        thread.start()
        yield address(listener)
        server.should_exit = True
        thread.join()


@pytest.fixture(scope="module")
def page(url: str) -> Iterator[Page]:
    driver = shutil.which("chromedriver")
    if driver is None:
        pytest.skip("chromium is installed without its driver (apt-get install chromium-driver)")
    options = ChromeOptions()
    options.binary_location = str(CHROMIUM)
    for flag in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
                 "--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"):  # fmt: skip
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    chrome = Chrome(options=options, service=Service(driver))
    yield Page(chrome, url)
    chrome.quit()


@pytest.mark.parametrize("screen", [DESKTOP, PHONE], ids=["desktop", "phone"])
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_an_example_is_captioned_without_complaints_or_sideways_scrolling(
    page: Page, screen: tuple[int, int, bool], dark: bool
) -> None:
    page.open(screen, dark)
    page.all("#examples button")[1].click()
    assert page.answered()
    assert page.texts("#beside dt") == ["locked", "shuffled", "nearest neighbour"]
    assert page.one("#reference").text.startswith("Reference: ")
    assert page.run("return document.documentElement.scrollWidth") <= screen[0]
    ground = page.run("return getComputedStyle(document.body).backgroundColor")
    assert ground == ("rgb(20, 24, 28)" if dark else "rgb(255, 255, 255)")
    picture, word = (page.one(selector).rect for selector in ("#sheet img", "#caption button"))
    assert word["y"] + word["height"] - picture["y"] <= screen[1], "a word and the picture are on the screen together"
    assert page.complaints() == []


def test_a_picture_is_captioned_as_by_the_library(page: Page, players: Mapping[str, Player], picture: Path) -> None:
    page.open()
    page.one("#how summary").click()
    Select(page.one("#n")).select_by_visible_text("3")
    page.one("#chosen").send_keys(str(picture))
    caption = page.answered()
    [expected] = players["image"].captioner.caption(picture, n=3)
    assert caption == " ".join(visible(word.text) for word in expected.words)
    assert page.texts("#caption small") == [
        f"{word.evidence:+.1f}".replace("-0.0", "+0.0").replace("-", "\u2212") for word in expected.words
    ]
    assert page.texts("#others b") == [visible(other.text) for other in expected.alternatives]


def test_pointing_at_a_word_shows_what_it_attends_to(page: Page, players: Mapping[str, Player], picture: Path) -> None:
    page.open()
    page.one("#chosen").send_keys(str(picture))
    page.answered()
    [expected] = players["image"].captioner.caption(picture)
    words = page.all("#caption button")
    ActionChains(page.chrome).move_to_element(words[1]).perform()
    page.wait("return document.querySelector('#sheet .over i').style.opacity !== ''")
    shown = [float(opacity) for opacity in page.run(
        "return [...document.querySelectorAll('#sheet .over i')].map((cell) => cell.style.opacity)"
    )]  # fmt: skip
    weights = expected.attention.weights[1]
    assert shown == pytest.approx([0.8 * min(1.0, float(weight) * len(weights) / 4) for weight in weights], abs=1e-3)
    words[0].click()
    ActionChains(page.chrome).move_to_element(page.one("footer")).perform()
    assert words[0].get_attribute("aria-pressed") == "true"
    kept = page.run("return document.querySelector('#sheet .over i').style.opacity")
    assert float(kept) == pytest.approx(0.8 * min(1.0, float(expected.attention.weights[0, 0]) * 16), abs=1e-3)


def test_a_drawing_is_captioned_when_the_pen_rests(page: Page) -> None:
    page.open()
    page.one("[data-way=draw]").click()
    pad = page.one("#pad")
    draw = ActionChains(page.chrome).move_to_element_with_offset(pad, -60, -60).click_and_hold()
    draw.move_by_offset(90, 40).move_by_offset(-30, 60).release().perform()
    assert page.answered()
    assert page.all("#veil i")
    assert "'drawing.png'" in page.one("#code").text
    page.one("#clear").click()
    page.wait("return document.querySelector('#result').hidden")


def test_a_text_is_captioned_and_its_tokens_are_shown(page: Page) -> None:
    page.open(captioner=1)
    page.one("#write button").click()
    assert page.refused() == "Type a text first"
    page.one("#words").send_keys(f"zwei {NASTY}")
    page.one("#write button").click()
    assert page.answered()
    assert page.run("return typeof hacked") == "undefined"
    assert page.all("#sheet.text i")
    assert f"zwei {NASTY}" in page.one("#code").text


def test_a_sound_is_heard_from_a_file_and_from_the_microphone(page: Page, tone: bytes, tmp_path: Path) -> None:
    (tmp_path / "a.wav").write_bytes(tone)
    page.open(captioner=2)
    page.one("#chosen").send_keys(str(tmp_path / "a.wav"))
    assert page.answered()
    assert page.one("#reference").text == "The first 1 s are heard."
    assert len(page.all("#sheet .over i")) == 10
    page.one("[data-way=record]").click()
    page.one("#start").click()
    page.wait("return document.querySelector('#start').classList.contains('on')")
    assert page.answered(), "it stops by itself after the second that is heard"
    assert "'recording.wav'" in page.one("#code").text
    assert page.complaints() == []


def test_an_array_or_the_id_of_stored_states(page: Page) -> None:
    page.open(captioner=3)
    page.one("[data-way=look]").click()
    page.one("#id").send_keys("input 3")
    page.one("#look button").click()
    assert "encoder=features without encoder.path reads arrays, not 'input 3'" in page.refused()


def test_what_cannot_be_read_is_one_line_and_the_next_is_captioned(page: Page, picture: Path, tmp_path: Path) -> None:
    page.open()
    (tmp_path / "bad.png").write_bytes(b"no picture")
    page.one("#chosen").send_keys(str(tmp_path / "bad.png"))
    assert page.refused().startswith("bad.png: not a picture of a kind that is read")
    with (tmp_path / "large.png").open("wb") as file:
        os.truncate(file.fileno(), 33_000_000)
    page.one("#chosen").send_keys(str(tmp_path / "large.png"))
    page.wait("return document.querySelector('#problem').textContent === 'large.png: at most 32 MB are read here'")
    page.one("#chosen").send_keys(str(picture))
    assert page.answered()
    assert not page.one("#problem").is_displayed()


def test_another_strategy_captions_again_and_the_code_says_so(page: Page, picture: Path) -> None:
    page.open()
    page.one("#chosen").send_keys(str(picture))
    page.answered()
    page.one("#how summary").click()
    Select(page.one("#strategy")).select_by_visible_text("nucleus")
    page.wait("return document.querySelector('#code').textContent.includes(\"strategy='nucleus', seed=0\")")
    page.one("[data-code=command]").click()
    assert "--strategy nucleus --seed 0" in page.one("#code").text
    assert "captioner = " not in page.one("#code").text


def test_a_server_that_has_gone_is_told(page: Page, picture: Path) -> None:
    page.open()
    page.chrome.execute_cdp_cmd("Network.enable", {})
    offline = {"latency": 0, "downloadThroughput": -1, "uploadThroughput": -1}
    page.chrome.execute_cdp_cmd("Network.emulateNetworkConditions", {"offline": True, **offline})
    page.one("#chosen").send_keys(str(picture))
    assert page.refused() == "lockdec play does not answer: is it still running in its terminal?"
    page.chrome.execute_cdp_cmd("Network.emulateNetworkConditions", {"offline": False, **offline})
