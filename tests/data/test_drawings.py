"""SVG to pictures: drawings of any shape on a white square."""

from __future__ import annotations

import numpy as np
import pytest

from lockdec.data.drawings import draw, svg_text
from lockdec.errors import DataError

BLACK = '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {} {}"><rect width="100%" height="100%"/></svg>'


@pytest.mark.parametrize(("width", "height", "top", "left"), [(8, 8, 0, 0), (16, 8, 4, 0), (8, 16, 0, 4)])
def test_a_drawing_fills_a_white_square_and_keeps_its_shape(width: int, height: int, top: int, left: int) -> None:
    pixels = np.array(draw(BLACK.format(width, height), "a.svg", 16))
    assert pixels.shape == (16, 16, 3)
    inside = pixels[top : 16 - top, left : 16 - left]
    assert (inside == 0).all()
    assert (pixels == 255).sum() == pixels.size - inside.size


def test_what_cannot_be_drawn_is_named() -> None:
    with pytest.raises(DataError, match=r"a\.svg: cannot be rendered"):
        draw("no drawing", "a.svg", 16)
    with pytest.raises(DataError, match=r"a\.svg: cannot be read as SVG"):
        svg_text(b"\xff", "a.svg")
