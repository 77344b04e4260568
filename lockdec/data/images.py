"""Reads pictures from untrusted files: bounded in pixels, and always RGB on white. Needs no torch."""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image, UnidentifiedImageError

from lockdec.errors import DataError
from lockdec.store.reading import opened

FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF")
ENDINGS = (".png", ".apng", ".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".gif", ".bmp", ".dib", ".tif", ".tiff")
MOST_PIXELS = 64_000_000  # 8,000 a side: 192 MB as RGB
LARGEST = 1 << 29  # bytes of a file
_KEPT = 1 << 28  # bytes of decoded pixels that stay in memory

_PNG, _JPEG = b"\x89PNG\r\n\x1a\n", b"\xff\xd8"
_SIGNATURES = (_PNG, _JPEG + b"\xff", b"GIF87a", b"GIF89a", b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_PNG_PIXELS = (b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND")
_UPRIGHT = {  # by the value of the EXIF tag Orientation
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


class DecodedPictures:
    """Decoded pictures by name: as many as fit in 256 MB, so that small data sets are decoded only once."""

    def __init__(self) -> None:
        self._pictures: dict[str, Image.Image] = {}
        self._room = _KEPT

    def keep(self, name: str, picture: Image.Image) -> None:
        """Keep a picture if there is room."""
        size = picture.width * picture.height * len(picture.getbands())
        if name not in self._pictures and size <= self._room:
            self._pictures[name] = picture
            self._room -= size

    def get(self, name: str) -> Image.Image | None:
        """A copy of the picture, if it was kept."""
        picture = self._pictures.get(name)
        return None if picture is None else picture.copy()


def is_image(start: bytes) -> bool:
    """Whether a file that starts with these bytes (16 are enough) is of a kind that `open_image` reads."""
    webp = (start[:4], start[8:12]) == (b"RIFF", b"WEBP")
    bmp = start[:2] == b"BM" and start[6:10] == bytes(4)
    return start.startswith(_SIGNATURES) or webp or bmp


def open_image(source: Path | bytes, name: str) -> Image.Image:
    """The picture in a file (or its first frame), turned upright, on white, in RGB.

    Of 16 bits per channel, the upper 8 are used. What only describes the picture (EXIF, colour profile, texts) may be
    damaged; apart from the orientation it is not used.

    Args:
        source: the file, or its content.
        name: its name in errors.

    Raises:
        DataError: it cannot be read, has an unknown format, or has too many pixels; nothing is decoded then.
    """
    if name.lower().endswith((".svg", ".svgz")):
        raise DataError(f"{name}: SVG is not read; save it as PNG")
    try:
        try:
            return _decoded(source if isinstance(source, Path) else io.BytesIO(source), name)
        except (DataError, FileNotFoundError, IsADirectoryError, PermissionError, Image.DecompressionBombError):
            raise
        except Exception:  # every decoder raises its own exceptions
            content = _content(source) if isinstance(source, Path) else source
            bare = _without_descriptions(content)
            try:
                if bare is not None:
                    return _decoded(io.BytesIO(bare), name)
            except Exception:
                pass  # its pixels are damaged; the first error says how
            raise
    except DataError:
        raise
    except Image.DecompressionBombError as error:
        raise DataError(f"{name}: more than the {MOST_PIXELS:,} pixels that are decoded; make it smaller") from error
    except UnidentifiedImageError as error:
        raise DataError(f"{name}: not a picture of a kind that is read ({', '.join(FORMATS)})") from error
    except Exception as error:
        if isinstance(error, OSError) and error.strerror:  # of the system, not of a decoder
            raise DataError(f"{name}: cannot be read ({error.strerror})") from error
        reason = " ".join(str(error).split()) or type(error).__name__
        raise DataError(f"{name}: a damaged picture ({reason})") from error


def _content(path: Path) -> bytes:
    """The start of a file, which is all of it unless it is too large for a picture."""
    with opened(path) as file:
        return file.read(LARGEST)


def _decoded(source: Path | io.BytesIO, name: str) -> Image.Image:
    with warnings.catch_warnings(), opened(source) if isinstance(source, Path) else nullcontext(source) as file:
        warnings.simplefilter("ignore")  # the limit of pixels here is lower, and descriptions may be damaged
        with Image.open(file, formats=FORMATS) as image:
            return upright(image, name)


def upright(image: Image.Image, name: str) -> Image.Image:
    """A picture of Pillow's in the form of `open_image`: turned upright, on white, in RGB.

    Raises:
        DataError: it has no pixels, too many, or such as cannot be converted.
    """
    if image.width * image.height > MOST_PIXELS:
        raise DataError(f"{name}: {image.width} x {image.height} pixels are more than the "
                        f"{MOST_PIXELS:,} that are decoded; make it smaller")  # fmt: skip
    if not image.width or not image.height:
        raise DataError(f"{name}: {image.width} x {image.height} pixels; it is empty")
    image.load()
    picture = _grey(image) if image.mode.startswith("I;16") else image
    if picture.mode in ("I", "F"):
        raise DataError(f"{name}: its pixels are 32-bit numbers, and which of them is white is not known; "
                        "save it with 8 or 16 bits a channel")  # fmt: skip
    try:
        picture = _on_white(picture)
    except ValueError as error:
        raise DataError(f"{name}: its colours ({picture.mode}) are not read; save it in RGB") from error
    turn = _UPRIGHT.get(_orientation(image) or 1)
    return picture if turn is None else picture.transpose(turn)


def _orientation(image: Image.Image) -> int | None:
    try:
        found = image.getexif().get(ExifTags.Base.Orientation)
        return found if isinstance(found, int) else None
    except Exception:  # damaged EXIF fails in many ways, and names no orientation
        return None


def _grey(image: Image.Image) -> Image.Image:
    """Grey of up to 16 bits, as TIFF says how many, in 8."""
    values = np.asarray(image).astype(np.uint16)
    bits = getattr(image, "tag_v2", {}).get(ExifTags.Base.BitsPerSample, (16,))[0]
    grey = (values >> (bits - 8)).astype(np.uint8)
    transparent = image.info.get("transparency")
    if isinstance(transparent, int):
        grey[values == transparent] = 255
    return Image.fromarray(grey)


def _on_white(image: Image.Image) -> Image.Image:
    if not image.has_transparency_data:
        return image.convert("RGB")
    picture = image.convert("RGBA")
    white = Image.new("RGB", picture.size, "white")
    white.paste(picture, mask=picture.getchannel("A"))
    return white


def _without_descriptions(content: bytes) -> bytes | None:
    """A PNG or JPEG without the parts that only describe its pixels; None if it has none or is of another kind."""
    if content.startswith(_PNG):
        bare = _PNG + b"".join(chunk for chunk in _chunks(content) if chunk[4:8] in _PNG_PIXELS)
    elif content.startswith(_JPEG):
        bare = _JPEG + b"".join(segment for segment in _segments(content) if not _describes(segment))
    else:
        return None
    return None if bare == content else bare


def _chunks(content: bytes) -> Iterator[bytes]:
    """The chunks of a PNG: length, kind, data, checksum."""
    start = len(_PNG)
    while start < len(content):
        end = start + 12 + int.from_bytes(content[start : start + 4], "big")
        yield content[start:end]
        start = end


def _segments(content: bytes) -> Iterator[bytes]:
    """The segments of a JPEG before its pixels, and then all the rest."""
    start = len(_JPEG)
    while content[start : start + 1] == b"\xff" and content[start + 1 : start + 2] not in (b"\xda", b""):
        end = start + 2 + int.from_bytes(content[start + 2 : start + 4], "big")
        yield content[start:end]
        start = end
    yield content[start:]


def _describes(segment: bytes) -> bool:
    """Whether it is a comment or a block of an application; Adobe's (14) says how colours are stored."""
    kind = segment[1:2]
    return segment[:1] == b"\xff" and (kind == b"\xfe" or (b"\xe0" <= kind <= b"\xef" and kind != b"\xee"))
