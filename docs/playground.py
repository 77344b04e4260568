"""Draw the playground with a captioned drawing in it: python docs/playground.py RUN_DIR OUT.png

Needs chromium and its driver. The drawing is one of the test split; the pointer rests on the second word.
"""

from __future__ import annotations

import shutil
import sys
import threading
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import uvicorn
from selenium.webdriver import Chrome, ChromeOptions
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By

from lockdec.data.openmoji import OpenMoji
from lockdec.play.__main__ import address, listening
from lockdec.play.player import Opening, open_players
from lockdec.play.server import application

DRAWING = "1F468-1F3FC-200D-1F3ED"
SCREEN = {"width": 1280, "height": 800, "deviceScaleFactor": 1.5, "mobile": False}


def main(run: str, out: Path) -> None:
    """Serve the run, give the page the drawing, point at a word, and take a picture."""
    with listening("127.0.0.1", 0) as listener, TemporaryDirectory() as folder:
        app = application(open_players([run], Opening()), "127.0.0.1")
        server = uvicorn.Server(uvicorn.Config(app, lifespan="off", log_level="warning"))
        threading.Thread(target=server.run, args=([listener],), daemon=True).start()
        data = OpenMoji("compositional", resolution=640)
        [drawing] = data.inputs([data.ids.index(DRAWING)])
        path = Path(folder) / f"{DRAWING}.png"
        drawing.save(path)  # type: ignore[union-attr]
        options = ChromeOptions()
        for flag in ("--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"):
            options.add_argument(flag)
        options.binary_location = shutil.which("chromium") or ""
        chrome = Chrome(options=options, service=Service(shutil.which("chromedriver")))
        try:
            chrome.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", SCREEN)
            chrome.get(address(listener))
            chrome.find_element(By.ID, "chosen").send_keys(str(path))
            while not (words := chrome.find_elements(By.CSS_SELECTOR, "#caption button")):
                time.sleep(0.1)
            ActionChains(chrome).move_to_element(words[1]).perform()
            time.sleep(0.5)  # colours fade in
            chrome.save_screenshot(str(out))
        finally:
            chrome.quit()
            server.should_exit = True


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
