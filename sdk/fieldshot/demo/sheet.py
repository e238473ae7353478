"""The contact sheet: pictures that were recognised, with their labels and confidences."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont, ImageOps
from PIL.PngImagePlugin import PngInfo

from fieldshot import images
from fieldshot.recognizer import Recognition

__all__ = ["MARK", "Answered", "draw"]

_KEY, _TEXT = "Software", "fieldshot"
MARK = f"{_KEY}\0{_TEXT}".encode()
"""What a sheet of this module has near its start."""

_SIDE, _CAPTION, _GAP, _COLUMNS = 128, 40, 10, 8
_RIGHT, _WRONG, _UNKNOWN = (30, 130, 60), (190, 40, 40), (120, 120, 120)


@dataclass(frozen=True)
class Answered:
    """A picture, what it shows, and what was said of it."""

    picture: object
    truth: str
    recognition: Recognition


def draw(answered: list[Answered], path: Path) -> None:
    """Write a PNG: green captions are right, red ones wrong (with what was right), grey ones "unknown"."""
    rows = -(-len(answered) // _COLUMNS)
    width = _GAP + _COLUMNS * (_SIDE + _GAP)
    sheet = Image.new("RGB", (width, _GAP + max(1, rows) * (_SIDE + _CAPTION + _GAP)), "white")
    canvas, font = ImageDraw.Draw(sheet), ImageFont.load_default(14)
    for position, item in enumerate(answered):
        row, column = divmod(position, _COLUMNS)
        left, top = _GAP + column * (_SIDE + _GAP), _GAP + row * (_SIDE + _CAPTION + _GAP)
        thumbnail = ImageOps.fit(Image.fromarray(images.read(item.picture)), (_SIDE, _SIDE))
        sheet.paste(thumbnail, (left, top))
        colour, lines = _caption(item)
        canvas.rectangle((left, top, left + _SIDE - 1, top + _SIDE - 1), outline=colour, width=3)
        for number, line in enumerate(lines):
            canvas.text((left, top + _SIDE + 2 + 18 * number), _fitting(line, font), fill=colour, font=font)
    about = PngInfo()
    about.add_text(_KEY, _TEXT)
    sheet.save(path, pnginfo=about)


def _caption(item: Answered) -> tuple[tuple[int, int, int], list[str]]:
    answer = item.recognition
    if answer.label is None:
        return _UNKNOWN, ["unknown", f"is {item.truth}"]
    first = f"{answer.label} {100 * answer.confidence:.0f} %"
    if answer.label == item.truth:
        return _RIGHT, [first]
    return _WRONG, [first, f"is {item.truth}"]


def _fitting(text: str, font: ImageFont.ImageFont | ImageFont.FreeTypeFont) -> str:
    if font.getlength(text) <= _SIDE:
        return text
    while text and font.getlength(text + "...") > _SIDE:
        text = text[:-1]
    return text + "..."
