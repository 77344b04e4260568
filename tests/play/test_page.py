"""The page in a real headless Chromium: what people do on it, on a desk and on a phone, in light and in dark."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from PIL import Image
from selenium.webdriver import Chrome
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.support.select import Select

from lockdec.errors import visible
from lockdec.play.__main__ import address, listening
from lockdec.play.player import Player
from lockdec.play.server import application
from tests.conftest import TinyRun
from tests.report.test_browser import CHROMIUM, DESKTOP, Page, page

__all__ = ["page"]  # the fixture

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed (apt-get install chromium)")

PHONE = (375, 812, True)
NASTY = "<img src=x onerror=hacked=1><script>hacked=1</script>"


class Playground(Page):
    """A browser with the page open in it."""

    def __init__(self, chrome: Chrome, url: str) -> None:
        super().__init__(chrome)
        self.url = url

    def visit(self, screen: tuple[int, int, bool] = DESKTOP, dark: bool = False, captioner: int = 0) -> None:
        width, height, mobile = screen
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": mobile}
        self.chrome.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        self.prefer("dark" if dark else "light")
        self.complaints()
        self.requests()
        self.chrome.get(self.url)
        self.wait("return document.documentElement.dataset.ready === 'true'")
        if captioner:
            Select(self.one("#captioner")).select_by_index(captioner)

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
def play(page: Page, url: str) -> Playground:
    return Playground(page.chrome, url)


@pytest.mark.parametrize("screen", [DESKTOP, PHONE], ids=["desktop", "phone"])
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_an_example_is_captioned_without_complaints_or_sideways_scrolling(
    play: Playground, screen: tuple[int, int, bool], dark: bool
) -> None:
    play.visit(screen, dark)
    play.all("#examples button")[1].click()
    assert play.answered()
    assert play.texts("#beside dt") == ["locked", "shuffled", "nearest neighbour"]
    assert play.one("#reference").text.startswith("Reference: ")
    assert play.run("return document.documentElement.scrollWidth") <= screen[0]
    ground = play.run("return getComputedStyle(document.body).backgroundColor")
    assert ground == ("rgb(20, 24, 28)" if dark else "rgb(255, 255, 255)")
    picture, word = (play.one(selector).rect for selector in ("#sheet img", "#caption button"))
    assert word["y"] + word["height"] - picture["y"] <= screen[1], "a word and the picture are on the screen together"
    assert play.complaints() == []
    assert {url[: len(play.url)] for url in play.requests() if not url.startswith(("data:", "blob:"))} == {play.url}


def test_a_picture_is_captioned_as_by_the_library(
    play: Playground, players: Mapping[str, Player], picture: Path
) -> None:
    play.visit()
    play.one("#how summary").click()
    Select(play.one("#n")).select_by_visible_text("3")
    play.one("#chosen").send_keys(str(picture))
    caption = play.answered()
    [expected] = players["image"].captioner.caption(picture, n=3)
    assert caption == " ".join(visible(word.text) for word in expected.words)
    assert play.texts("#caption small") == [
        f"{word.evidence:+.1f}".replace("-0.0", "+0.0").replace("-", "\u2212") for word in expected.words
    ]
    assert play.texts("#others b") == [visible(other.text) for other in expected.alternatives]


def test_pointing_at_a_word_shows_what_it_attends_to(
    play: Playground, players: Mapping[str, Player], picture: Path
) -> None:
    play.visit()
    play.one("#chosen").send_keys(str(picture))
    play.answered()
    [expected] = players["image"].captioner.caption(picture)
    words = play.all("#caption button")
    ActionChains(play.chrome).move_to_element(words[1]).perform()
    play.wait("return document.querySelector('#sheet .over i').style.opacity !== ''")
    shown = [float(opacity) for opacity in play.run(
        "return [...document.querySelectorAll('#sheet .over i')].map((cell) => cell.style.opacity)"
    )]  # fmt: skip
    weights = expected.attention.weights[1]
    assert shown == pytest.approx([0.8 * min(1.0, float(weight) * len(weights) / 4) for weight in weights], abs=1e-3)
    words[0].click()
    ActionChains(play.chrome).move_to_element(play.one("footer")).perform()
    assert words[0].get_attribute("aria-pressed") == "true"
    kept = play.run("return document.querySelector('#sheet .over i').style.opacity")
    assert float(kept) == pytest.approx(0.8 * min(1.0, float(expected.attention.weights[0, 0]) * 16), abs=1e-3)


@pytest.mark.parametrize("screen", [DESKTOP, (800, 900, False), PHONE], ids=["desktop", "tablet", "phone"])
@pytest.mark.parametrize("size", [(300, 900), (900, 300)], ids=["high", "wide"])
def test_a_picture_keeps_its_shape(
    play: Playground, tmp_path: Path, screen: tuple[int, int, bool], size: tuple[int, int]
) -> None:
    Image.new("RGB", size, "teal").save(tmp_path / "picture.png")
    play.visit(screen)
    play.one("#chosen").send_keys(str(tmp_path / "picture.png"))
    play.answered()
    play.wait("return document.querySelector('#sheet img').complete")
    shown, over = (play.one(selector).rect for selector in ("#sheet img", "#sheet .over"))
    assert shown["width"] / shown["height"] == pytest.approx(size[0] / size[1], rel=0.02)
    assert (over["width"], over["height"]) == pytest.approx((shown["width"], shown["height"]), abs=1)
    assert shown["height"] <= 0.65 * screen[1]


def test_pointing_at_a_word_that_goes_away_is_no_error(play: Playground, picture: Path) -> None:
    play.visit()
    play.one("#chosen").send_keys(str(picture))
    play.answered()
    play.all("#caption button")[0].click()
    play.one("[data-way=draw]").click()
    ActionChains(play.chrome).move_to_element(play.one("footer")).perform()
    assert play.complaints() == []


def test_a_drawing_is_captioned_when_the_pen_rests(play: Playground) -> None:
    play.visit()
    play.one("[data-way=draw]").click()
    pad = play.one("#pad")
    draw = ActionChains(play.chrome).move_to_element_with_offset(pad, -60, -60).click_and_hold()
    draw.move_by_offset(90, 40).move_by_offset(-30, 60).release().perform()
    assert play.answered()
    assert play.all("#veil i")
    assert "'drawing.png'" in play.one("#code").text
    play.one("#clear").click()
    play.wait("return document.querySelector('#result').hidden")


def test_a_text_is_captioned_and_its_tokens_are_shown(play: Playground) -> None:
    play.visit(captioner=1)
    play.one("#write button").click()
    assert play.refused() == "Type a text first"
    play.one("#words").send_keys(f"zwei {NASTY}")
    play.one("#write button").click()
    assert play.answered()
    assert play.run("return typeof hacked") == "undefined"
    assert play.all("#sheet.text i")
    assert f"zwei {NASTY}" in play.one("#code").text


def test_a_sound_is_heard_from_a_file_and_from_the_microphone(play: Playground, tone: bytes, tmp_path: Path) -> None:
    (tmp_path / "a.wav").write_bytes(tone)
    play.visit(captioner=2)
    play.one("#chosen").send_keys(str(tmp_path / "a.wav"))
    assert play.answered()
    assert play.one("#reference").text == "The first 1 s are heard."
    assert len(play.all("#sheet .over i")) == 10
    play.one("[data-way=record]").click()
    play.one("#start").click()
    play.wait("return document.querySelector('#start').classList.contains('on')")
    assert play.answered(), "it stops by itself after the second that is heard"
    assert "'recording.wav'" in play.one("#code").text
    assert play.complaints() == []


def test_an_array_or_the_id_of_stored_states(play: Playground) -> None:
    play.visit(captioner=3)
    play.one("[data-way=look]").click()
    play.one("#id").send_keys("input 3")
    play.one("#look button").click()
    assert "encoder=features without encoder.path reads arrays, not 'input 3'" in play.refused()


def test_a_plug_borrows_the_examples_and_says_why_it_shows_no_attention(play: Playground, talking: TinyRun) -> None:
    play.visit()
    assert play.texts("#captioner option")[-1] == "prefix (prefix)"
    play.all("#examples button")[0].click()
    play.answered()
    Select(play.one("#captioner")).select_by_index(4)
    play.wait("return document.querySelector('#code').textContent.includes('runs/prefix')")
    assert play.one("#examples h3").text == f"Inputs that {talking.result['name']} was evaluated on"
    play.all("#examples button")[1].click()
    play.wait("return document.querySelectorAll('#examples [aria-pressed=true]').length === 1")
    play.answered()
    assert "This bridge has no attention over the states of the input to show." in play.one("#hint").text
    assert play.one("#missing").text.startswith("An export or a plug holds no inputs of its run")
    assert play.complaints() == []


def test_what_cannot_be_read_is_one_line_and_the_next_is_captioned(
    play: Playground, picture: Path, tmp_path: Path
) -> None:
    play.visit()
    (tmp_path / "bad.png").write_bytes(b"no picture")
    play.one("#chosen").send_keys(str(tmp_path / "bad.png"))
    assert play.refused().startswith("bad.png: not a picture of a kind that is read")
    with (tmp_path / "large.png").open("wb") as file:
        os.truncate(file.fileno(), 33_000_000)
    play.one("#chosen").send_keys(str(tmp_path / "large.png"))
    play.wait("return document.querySelector('#problem').textContent === 'large.png: at most 32 MB are read here'")
    play.one("#chosen").send_keys(str(picture))
    assert play.answered()
    assert not play.one("#problem").is_displayed()


def test_another_strategy_captions_again_and_the_code_says_so(play: Playground, picture: Path) -> None:
    play.visit()
    play.one("#chosen").send_keys(str(picture))
    play.answered()
    play.one("#how summary").click()
    Select(play.one("#strategy")).select_by_visible_text("nucleus")
    play.wait("return document.querySelector('#code').textContent.includes(\"strategy='nucleus', seed=0\")")
    play.one("[data-code=command]").click()
    assert "--strategy nucleus --seed 0" in play.one("#code").text
    assert "captioner = " not in play.one("#code").text


def test_a_server_that_has_gone_is_told(play: Playground, picture: Path) -> None:
    play.visit()
    play.chrome.execute_cdp_cmd("Network.enable", {})
    offline = {"latency": 0, "downloadThroughput": -1, "uploadThroughput": -1}
    play.chrome.execute_cdp_cmd("Network.emulateNetworkConditions", {"offline": True, **offline})
    play.one("#chosen").send_keys(str(picture))
    assert play.refused() == "lockdec play does not answer: is it still running in its terminal?"
    play.chrome.execute_cdp_cmd("Network.emulateNetworkConditions", {"offline": False, **offline})
