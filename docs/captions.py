"""Draw a run's captions beside its drawings: python docs/captions.py RUN_DIR OUT.png

Takes every second drawing that the run kept, in the order of its captions.jsonl; nothing is chosen by hand.
"""

from __future__ import annotations

import json
import sys
import textwrap
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

COLUMNS, CELL, PICTURE, SHOWN = 3, (430, 132), 96, 12
LINES = (("caption", "caption", "#111111"), ("reference", "references", "#666666"))


def main(run: Path, out: Path) -> None:
    """Write the picture: each drawing with its caption (green if it is correct) and its reference."""
    rows = [json.loads(line) for line in (run / "captions.jsonl").read_text(encoding="utf-8").splitlines()]
    rows = [row for row in rows if (run / "drawings" / f"{row['id']}.png").is_file()][::2][:SHOWN]
    width, height = CELL
    picture = Image.new("RGB", (COLUMNS * width, -(-len(rows) // COLUMNS) * height), "white")
    draw = ImageDraw.Draw(picture)
    font, small = ImageFont.load_default(15), ImageFont.load_default(11)
    for index, row in enumerate(rows):
        x, y = index % COLUMNS * width, index // COLUMNS * height
        with Image.open(run / "drawings" / f"{row['id']}.png") as drawing:
            picture.paste(drawing.resize((PICTURE, PICTURE)), (x + 8, y + 14))
        left, top = x + PICTURE + 20, y + 12
        for label, field, colour in LINES:
            text = row[field] if isinstance(row[field], str) else row[field][0]
            right = field == "caption" and text in row["references"]
            draw.text((left, top), label, "#999999", small)
            lines = textwrap.wrap(text, 38)
            draw.multiline_text((left, top + 13), "\n".join(lines), "#00795a" if right else colour, font)
            top += 20 + 19 * len(lines)
    picture.save(out)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
