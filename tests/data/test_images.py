"""Pictures from files: what comes out is RGB on white, and what must not be opened is not."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lockdec.data.images import MOST_PIXELS, open_image
from lockdec.errors import DataError


def png(width: int, height: int) -> bytes:
    """A PNG that says it has these sides and holds one row."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    row = zlib.compress(bytes(1 + 3 * min(width, 10)))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", row) + chunk(b"IEND", b"")


def encoded(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF"])
def test_every_kind_comes_out_as_rgb(kind: str) -> None:
    picture = open_image(encoded(Image.new("RGB", (7, 5), (200, 30, 30)), kind), "red")
    assert (picture.mode, picture.size) == ("RGB", (7, 5))
    assert np.asarray(picture)[2, 3].tolist() == pytest.approx([200, 30, 30], abs=12)


@pytest.mark.parametrize("mode", ["1", "L", "P", "LA", "RGBA", "CMYK"])
def test_every_mode_comes_out_as_rgb(mode: str, tmp_path: Path) -> None:
    path = tmp_path / "x.tiff" if mode == "CMYK" else tmp_path / "x.png"
    Image.new(mode, (4, 4)).save(path)
    assert open_image(path, "x").mode == "RGB"


def test_what_is_transparent_is_white() -> None:
    image = Image.new("RGBA", (2, 1), (0, 0, 0, 0))
    image.putpixel((1, 0), (0, 0, 255, 255))
    assert np.asarray(open_image(encoded(image), "half")).tolist() == [[[255, 255, 255], [0, 0, 255]]]


def test_a_photograph_stands_upright() -> None:
    image = Image.new("RGB", (4, 2))
    exif = image.getexif()
    exif[0x0112] = 6  # turned by a quarter
    assert open_image(encoded(image, "JPEG", exif=exif), "photo").size == (2, 4)


@pytest.mark.parametrize(
    ("content", "name", "message"),
    [
        (png(8_001, 8_000), "bomb.png", rf"^bomb.png: 8001 x 8000 pixels are more than the {MOST_PIXELS:,}"),
        (png(60_000, 60_000), "bomb.png", r"^bomb.png: more than the 64,000,000 pixels"),
        (b"", "empty.png", "^empty.png: not a picture of a kind that is read"),
        (b"not a picture", "text.png", "not a picture of a kind"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "run.png", "not a picture of a kind"),
        (encoded(Image.effect_noise((64, 64), 50))[:300], "short.png", "^short.png: a damaged picture"),
        (b"<svg/>", "drawing.SVG", "SVG is not read; save it as PNG"),
        (encoded(Image.new("I;16", (4, 4))), "deep.png", "more than 8 bits a channel"),
    ],
)
def test_what_cannot_be_used_is_named(content: bytes, name: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        open_image(content, name)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"^x.png: cannot be read \(No such file or directory\)"):
        open_image(tmp_path / "x.png", "x.png")


def test_a_bomb_is_refused_before_it_is_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image.Image, "load", lambda self: pytest.fail("decoded"))
    with pytest.raises(DataError, match="8001 x 8000"):
        open_image(png(8_001, 8_000), "bomb.png")
