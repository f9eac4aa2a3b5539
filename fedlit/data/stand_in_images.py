"""Generated images for stand-ins: coarse patches in a colour of their class, no picture of anyone."""

from __future__ import annotations

from typing import Any

import numpy as np

from fedlit import seeds

CELLS = 7
"""Patches across and down."""
COLOURS = ((200, 80, 80), (80, 200, 80), (80, 80, 200), (200, 200, 80), (200, 80, 200), (80, 200, 200), (140, 140, 140))


def stand_in_image(number: int, of_class: int, height: int, width: int) -> Any:
    """uint8, shape (height, width, 3); no two numbers give the same. Its brightness, too, is of its class.

    Args:
        number: Of the image.
        of_class: Index of its class; more than seven share their colours.
        height: Pixels.
        width: Pixels.
    """
    generator = seeds.numpy_generator(0, "stand-in image", number)
    patches = np.array(COLOURS[of_class % len(COLOURS)]) * (0.6 + 0.4 * (of_class % 4) / 3)
    patches = np.clip(patches + generator.normal(0, 40, (CELLS, CELLS, 3)), 0, 255).astype(np.uint8)
    return patches[np.arange(height) * CELLS // height][:, np.arange(width) * CELLS // width]
