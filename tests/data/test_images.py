"""Pictures from files: what comes out is RGB on white, and what must not be opened is not."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from lockdec.data.images import ENDINGS, MOST_PIXELS, DecodedPictures, is_image, open_image
from lockdec.errors import DataError


def chunk(kind: bytes, content: bytes) -> bytes:
    """A part of a PNG."""
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(width: int, height: int) -> bytes:
    """A PNG that says it has these sides and holds one row."""
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
        (encoded(Image.new("I", (4, 4)), "TIFF"), "deep.tif", "^deep.tif: its pixels are 32-bit numbers"),
        (encoded(Image.new("F", (4, 4)), "TIFF"), "deep.tif", "32-bit numbers, .* save it with 8 or 16 bits a channel"),
    ],
)
def test_what_cannot_be_used_is_named(content: bytes, name: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        open_image(content, name)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"^x.png: cannot be read \(No such file or directory\)"):
        open_image(tmp_path / "x.png", "x.png")


def test_a_decompression_bomb_is_refused_before_it_is_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image.Image, "load", lambda self: pytest.fail("decoded"))
    with pytest.raises(DataError, match="8001 x 8000"):
        open_image(png(8_001, 8_000), "bomb.png")


NOISE = Image.effect_noise((30, 20), 90).convert("RGB")
LONG = zlib.compress(b"a" * 5_000_000)  # more than Pillow reads of a text
DESCRIPTIONS = {
    "long zTXt": chunk(b"zTXt", b"k\0\0" + LONG),
    "long iTXt": chunk(b"iTXt", b"k\0\1\0en\0k\0" + LONG),
    "long profile": chunk(b"iCCP", b"x\0\0" + LONG),
    "profile packed in another way": chunk(b"iCCP", b"x\0\5" + LONG),
    "empty profile": chunk(b"iCCP", b""),
    "short size of pixels": chunk(b"pHYs", b"\0"),
    "short gamma": chunk(b"gAMA", b""),
    "no EXIF": chunk(b"eXIf", b"no EXIF"),
    "text with a wrong checksum": chunk(b"tEXt", b"k\0text")[:-1] + b"x",
    "short animation": chunk(b"acTL", b"\0"),
}


@pytest.mark.parametrize("description", DESCRIPTIONS)
@pytest.mark.parametrize("place", ["before", "after"])
def test_what_describes_a_png_may_be_damaged(description: str, place: str) -> None:
    content, at = encoded(NOISE), 33 if place == "before" else -12
    picture = open_image(content[:at] + DESCRIPTIONS[description] + content[at:], "x.png")
    assert np.array_equal(np.asarray(picture), np.asarray(NOISE))


def test_pixels_that_are_damaged_as_well_stay_refused() -> None:
    content = encoded(NOISE)
    with pytest.raises(DataError, match=r"^x.png: a damaged picture"):
        open_image(content[:33] + DESCRIPTIONS["long zTXt"] + content[33:400], "x.png")


def photo() -> bytes:
    """A JPEG with EXIF that turns it, a profile, Adobe's mark and a comment."""
    exif = NOISE.getexif()
    exif[0x0112], exif[0x010F], exif[0x011A] = 6, "maker", 72.0
    return encoded(NOISE.convert("CMYK"), "JPEG", exif=exif, icc_profile=b"profile", comment=b"comment")


def described(content: bytes) -> list[int]:
    """The places of a JPEG's bytes that describe it."""
    places, start = list[int](), 2
    while content[start + 1] != 0xDA:
        end = start + 2 + int.from_bytes(content[start + 2 : start + 4], "big")
        places += range(start + 4, end) if content[start + 1] in (0xE1, 0xE2, 0xFE) else ()
        start = end
    return places


PHOTO = photo()


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(described(PHOTO)), st.integers(0, 255)), max_size=6))
def test_what_describes_a_photograph_may_be_damaged(changes: list[tuple[int, int]]) -> None:
    content = bytearray(PHOTO)
    for place, value in changes:
        content[place] = value
    upright, turned = np.asarray(open_image(PHOTO, "x")), np.asarray(open_image(bytes(content), "x"))
    same = [np.rot90(upright, times) for times in range(4)]
    same += [np.fliplr(picture) for picture in same]
    assert any(np.array_equal(turned, picture) for picture in same)


def test_a_photograph_with_a_number_that_is_none_stands_upright() -> None:
    """EXIF with a resolution of -1 / 0, which Pillow cannot write again."""
    fields = struct.pack("<H HHII HHII I ii", 2, 0x0112, 3, 1, 6, 0x011A, 10, 1, 38, 0, -1, 0)
    content = encoded(NOISE, "JPEG", exif=b"Exif\0\0II*\0\x08\0\0\0" + fields)
    assert open_image(content, "x.jpg").size == (20, 30)


def sixteen(kind: int, values: np.ndarray, transparent: bytes = b"") -> bytes:
    """A PNG of 16 bits per channel."""
    height, width = values.shape[:2]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 16, kind, 0, 0, 0))
    mark = chunk(b"tRNS", transparent) if transparent else b""
    return b"\x89PNG\r\n\x1a\n" + head + mark + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def test_of_sixteen_bits_the_upper_eight_are_used() -> None:
    values = np.random.default_rng(0).integers(0, 1 << 16, (5, 4, 3)).astype(np.uint16)
    upper = (values >> 8).astype(np.uint8)
    grey = np.repeat(upper[:, :, :1], 3, axis=2)
    assert np.array_equal(np.asarray(open_image(sixteen(2, values), "x")), upper)
    assert np.array_equal(np.asarray(open_image(sixteen(0, values[:, :, 0]), "x")), grey)
    tiff = encoded(Image.fromarray(values[:, :, 0]), "TIFF")
    assert np.array_equal(np.asarray(open_image(tiff, "x")), grey)
    solid = np.concatenate([values, np.full((5, 4, 1), 0xFFFF, np.uint16)], axis=2)
    assert np.array_equal(np.asarray(open_image(sixteen(6, solid), "x")), upper)
    transparent = struct.pack(">H", values[2, 3, 0])
    assert np.asarray(open_image(sixteen(0, values[:, :, 0], transparent), "x"))[2, 3].tolist() == [255, 255, 255]


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF"])
def test_a_picture_is_known_by_its_first_bytes(kind: str) -> None:
    assert is_image(encoded(NOISE, kind)[:16])
    assert not is_image(b"RIFF1234WAVEfmt ")
    assert not is_image(b"BMW is a car maker")
    assert {ending for ending, known in Image.registered_extensions().items() if known == kind} <= {*ENDINGS}


def test_pictures_are_kept_while_there_is_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lockdec.data.images._KEPT", 2_000)
    kept = DecodedPictures()
    for name in "abc":
        kept.keep(name, NOISE)  # 1,800 bytes
    picture = kept.get("a")
    assert picture is not None
    picture.paste(0, (0, 0, 30, 20))
    assert np.array_equal(np.asarray(kept.get("a")), np.asarray(NOISE))
    assert kept.get("b") is None
