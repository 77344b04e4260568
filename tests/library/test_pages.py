"""The examples of docs/library.md and docs/plugs.md run, in their order, as a reader would run them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from lockdec.export import export_plug
from tests.conftest import TinyRun

DOCS = Path(__file__).parents[2] / "docs"


@pytest.mark.parametrize("page", ["library.md", "plugs.md"])
def test_the_examples_run(page: str, tiny: TinyRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "outputs" / "runs").mkdir(parents=True)
    (tmp_path / "outputs" / "runs" / "default").symlink_to(tiny.folder)
    Image.new("RGB", (40, 40), "red").save(tmp_path / "picture.png")
    export_plug(tiny.folder, tmp_path / "my_plug")
    monkeypatch.chdir(tmp_path)
    examples = re.findall(r"^```python\n(.*?)^```", (DOCS / page).read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    assert examples
    names: dict[str, Any] = {}
    exec("\n".join(examples), names)
    if page == "library.md":
        assert [caption and caption.text for caption in names["captions"]][1] is None
        assert "<figure" in (tmp_path / "attention.html").read_text(encoding="utf-8")
        assert names["scores"].shape == (1, 2)
    else:
        assert names["logits"].shape == (2, 5, 32)
