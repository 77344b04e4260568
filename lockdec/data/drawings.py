"""SVG drawings to pictures. Needs no torch."""

from __future__ import annotations

import io
import re
from pathlib import Path

from PIL import Image

from lockdec.errors import ConfigError, DataError

MOST_SIDE = 8_000  # pixels of a picture, as many as of one that is read

_REFERENCE = re.compile(
    r"""<!doctype|<!entity|<\?xml-stylesheet|@import|<[\w:]*image\b|href\s*=\s*["'](?!#)|url\(\s*["']?(?!["'#])|\0""",
    re.I,
)


def require_resolution(resolution: int) -> None:
    """Raise ConfigError unless drawings can have so many pixels a side."""
    if resolution < 1:
        raise ConfigError(f"data.resolution={resolution}: at least 1 pixel")
    if resolution > MOST_SIDE:
        raise ConfigError(f"data.resolution={resolution}: at most {MOST_SIDE} pixels")


def read_svg(path: Path) -> str:
    """The text of an SVG file; see `svg_text`.

    Raises:
        DataError: it cannot be read, or `svg_text` refuses it.
    """
    try:
        return svg_text(path.read_bytes(), path)
    except OSError as error:
        raise DataError(f"{path}: cannot be read as SVG ({error})") from error


def svg_text(content: bytes, where: object) -> str:
    """The text of a drawing that does not refer to other files, which the renderer would read.

    Args:
        content: of the file.
        where: the file, for errors.

    Raises:
        DataError: it refers to something outside its file, or is not a text.
    """
    try:
        text = content.decode("utf-8")
    except ValueError as error:
        raise DataError(f"{where}: cannot be read as SVG ({error})") from error
    if found := _REFERENCE.search(text):
        raise DataError(f"{where}: refers to what is outside of it ({' '.join(found[0].split())}), which is not read")
    return text


def draw(svg: str, where: object, side: int) -> Image.Image:
    """Render a drawing as large as fits into a white square, centred.

    Args:
        svg: its text.
        where: its file, for errors.
        side: of the square RGB picture, in pixels.

    Raises:
        DataError: it cannot be rendered.
    """
    import resvg_py

    try:
        png = resvg_py.svg_to_bytes(svg_string=svg, width=side, height=side, background="white", skip_system_fonts=True)
    except ValueError as error:
        raise DataError(f"{where}: cannot be rendered ({error})") from error
    drawing = Image.open(io.BytesIO(png)).convert("RGB")
    if drawing.size == (side, side):
        return drawing
    square = Image.new("RGB", (side, side), "white")
    square.paste(drawing, ((side - drawing.width) // 2, (side - drawing.height) // 2))
    return square
