"""Sheets of tasks with several sensors: one block of rows per sensor, of the same examples."""

from __future__ import annotations

from dataclasses import replace
from io import BytesIO
from textwrap import fill
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from rlbench.core.sensors import JointBox
from rlbench.report.figures import draw
from rlbench.report.figures.draw import Sheet

if TYPE_CHECKING:
    from numpy.typing import NDArray

TITLE = 50  # characters of a line of the title


def split_sheet(sheet: Sheet) -> list[Sheet]:
    """A sheet per sensor, the first one with the whole title; the sheet itself, if it has one sensor."""
    box = sheet.box
    if not isinstance(box, JointBox):
        return [sheet]
    return [
        replace(
            sheet,
            title=f"{fill(sheet.title, TITLE)}\n{sensor}" if k == 0 else sensor,
            modality=sensor,
            box=own,
            x=box.split(sheet.x, sensor),
            x_adv=box.split(sheet.x_adv, sensor),
        )
        for k, (sensor, own) in enumerate(box.parts)
    ]


def draw_sheet(sheet: Sheet) -> bytes:
    """The sheet as a PNG, the sensors below each other."""
    parts = split_sheet(sheet)
    if len(parts) == 1:
        return draw.draw(sheet)
    pictures = [np.asarray(Image.open(BytesIO(draw.draw(part))).convert("RGB")) for part in parts]
    buffer = BytesIO()
    Image.fromarray(stack(pictures)).save(buffer, "PNG")
    return buffer.getvalue()


def stack(pictures: list[NDArray[Any]]) -> NDArray[Any]:
    """(H, W, 3) uint8 pictures below each other, with white on the right of the narrower ones."""
    width = max(picture.shape[1] for picture in pictures)
    spare = [((0, 0), (0, width - picture.shape[1]), (0, 0)) for picture in pictures]
    return np.concatenate([np.pad(p, pad, constant_values=255) for p, pad in zip(pictures, spare, strict=True)])
