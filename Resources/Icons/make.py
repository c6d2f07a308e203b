"""Draw the module's icon: `.venv/bin/python Resources/Icons/make.py`.

An organ on a grid of tokens: the network keeps the tokens that see the organ and drops the others.
"""

import math
from pathlib import Path

from PIL import Image, ImageDraw

ICON = Path(__file__).resolve().parents[2] / "APFormerSlicer" / "Resources" / "Icons" / "APFormerSlicer.png"
SIZE = 128  # pixels, as the Extensions Manager asks
FINE = 8  # drawn so many times larger, then averaged down: smooth edges
TOKENS = 4  # along each side; more would blur at 32 pixels
MARGIN, GAP = 11.0, 4.0  # around the grid and between its tokens, pixels of the icon
SEEN = 0.3  # the part of a token that the organ must cover for it to be kept

GROUND, DROPPED, KEPT, CONTOUR = "#12324a", "#2a5270", "#2fd0c4", "#ffa14a"


def outline(reach: float) -> list[tuple[float, float]]:
    """The outline of a kidney whose mean radius is `reach` pixels of the icon, in pixels of the drawing."""
    points = []
    for step in range(360):
        hollow = 0.42 * math.exp(-(((step - 180) / 42) ** 2))  # where the vessels enter
        radius = reach * (1 - 0.14 * math.cos(2 * math.radians(step)) - hollow)
        angle = math.radians(step + 24)
        points.append(((60 + radius * math.cos(angle)) * FINE, (64 + radius * math.sin(angle)) * FINE))
    return points


def draw() -> Image.Image:
    """The icon, RGBA, with transparent corners."""
    picture = Image.new("RGBA", (SIZE * FINE, SIZE * FINE), (0, 0, 0, 0))
    pen = ImageDraw.Draw(picture)
    pen.rounded_rectangle((FINE, FINE, (SIZE - 1) * FINE, (SIZE - 1) * FINE), radius=24 * FINE, fill=GROUND)

    organ = Image.new("L", picture.size, 0)
    ImageDraw.Draw(organ).polygon(outline(47), fill=255)
    side = (SIZE - 2 * MARGIN - (TOKENS - 1) * GAP) / TOKENS
    for row in range(TOKENS):
        for column in range(TOKENS):
            left, top = MARGIN + column * (side + GAP), MARGIN + row * (side + GAP)
            box = tuple(round(edge * FINE) for edge in (left, top, left + side, top + side))
            covered = organ.crop(box).resize((1, 1), Image.Resampling.BOX).getpixel((0, 0)) / 255
            pen.rounded_rectangle(box, radius=5 * FINE, fill=KEPT if covered > SEEN else DROPPED)

    contour = outline(47)
    pen.line([*contour, *contour[:2]], fill=CONTOUR, width=7 * FINE, joint="curve")
    return picture.resize((SIZE, SIZE), Image.Resampling.LANCZOS)


if __name__ == "__main__":
    draw().save(ICON, optimize=True)
