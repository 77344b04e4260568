"""SVG to pictures: drawings of any shape on a white square."""

from __future__ import annotations

import numpy as np
import pytest

from lockdec.data.drawings import draw, require_resolution, svg_text
from lockdec.errors import ConfigError, DataError

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


@pytest.mark.parametrize(("side", "said"), [(0, "at least 1 pixel"), (10**12, "at most 8000 pixels")])
def test_a_size_that_no_picture_has_is_refused_before_one_is_drawn(side: int, said: str) -> None:
    with pytest.raises(ConfigError, match=rf"^data\.resolution={side}: {said}$"):
        require_resolution(side)
    require_resolution(128)
