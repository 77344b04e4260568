"""Reads pictures from untrusted files: bounded in pixels, and always RGB on white. Needs no torch."""

from __future__ import annotations

import io
import warnings
from pathlib import Path

from PIL import Image, ImageOps, UnidentifiedImageError

from lockdec.errors import DataError

FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF")
MOST_PIXELS = 64_000_000  # 8,000 a side: 192 MB as RGB


def open_image(source: Path | bytes, name: str) -> Image.Image:
    """The picture in a file (or its first frame), turned upright, on white, in RGB.

    Args:
        source: the file, or its content.
        name: its name in errors.

    Raises:
        DataError: it cannot be read, has an unknown format, or has too many pixels; nothing is decoded then.
    """
    if name.lower().endswith((".svg", ".svgz")):
        raise DataError(f"{name}: SVG is not read; save it as PNG")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # the limit here is lower
            with Image.open(source if isinstance(source, Path) else io.BytesIO(source), formats=FORMATS) as image:
                if image.width * image.height > MOST_PIXELS:
                    raise DataError(f"{name}: {image.width} x {image.height} pixels are more than the "
                                    f"{MOST_PIXELS:,} that are decoded; make it smaller")  # fmt: skip
                if image.mode.startswith(("I", "F")):
                    raise DataError(f"{name}: its pixels have more than 8 bits a channel; save it with 8")
                return _on_white(ImageOps.exif_transpose(image))
    except DataError:
        raise
    except Image.DecompressionBombError as error:
        raise DataError(f"{name}: more than the {MOST_PIXELS:,} pixels that are decoded; make it smaller") from error
    except UnidentifiedImageError as error:
        raise DataError(f"{name}: not a picture of a kind that is read ({', '.join(FORMATS)})") from error
    except (FileNotFoundError, IsADirectoryError, PermissionError) as error:
        raise DataError(f"{name}: cannot be read ({error.strerror})") from error
    except Exception as error:  # every decoder raises its own exceptions for damaged files
        reason = " ".join(str(error).split()) or type(error).__name__
        raise DataError(f"{name}: a damaged picture ({reason})") from error


def _on_white(image: Image.Image) -> Image.Image:
    if not image.has_transparency_data:
        return image.convert("RGB")
    picture = image.convert("RGBA")
    white = Image.new("RGB", picture.size, "white")
    white.paste(picture, mask=picture.getchannel("A"))
    return white
