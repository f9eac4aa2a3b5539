"""Images out of files, as uint8 of three channels and one size. Without torchvision."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from fedlit.data.base.records import BadRecord

Pixels = npt.NDArray[np.uint8]
Resize = Literal["error", "crop", "squash"]
MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA")
"""What becomes RGB: black and white and grey are repeated, palettes looked up, transparency is dropped."""


def read_image(path: Path) -> Pixels:
    """An image file, turned upright as its EXIF data say, as uint8 RGB of shape (height, width, 3).

    Args:
        path: Any format that Pillow reads; 8 bits a channel, one image.

    Raises:
        BadRecord: It cannot be read, or is of another mode.
    """
    from PIL import Image, ImageOps

    try:
        with Image.open(path) as image:
            if (frames := getattr(image, "n_frames", 1)) > 1:
                raise BadRecord(f"{path}: holds {frames} images, one is needed: save it as a file of its own")
            if image.mode not in MODES or _is_deep(image):
                mode = f"{image.mode} of 16 bits" if image.mode in MODES else image.mode
                known = f"{', '.join(MODES[:-1])} or {MODES[-1]}"
                mend = "convert it to RGB, with the window of values that matters"
                raise BadRecord(f"{path}: its mode is {mode}, not {known} of 8 bits a channel: {mend}")
            upright = ImageOps.exif_transpose(image)
            upright.load()
    except BadRecord:
        raise
    except (OSError, ValueError, SyntaxError, EOFError, Image.DecompressionBombError) as error:
        # The message of what Pillow does not know repeats the path.
        what = "no format that Pillow knows" if "cannot identify" in str(error) else None
        what = what or getattr(error, "strerror", None) or " ".join(str(error).split())
        raise BadRecord(f"{path}: cannot be read as an image ({what}): save it anew, or leave it out") from error
    # By way of RGBA, for Pillow warns of palettes with transparency.
    colours = upright.convert("RGBA").convert("RGB") if upright.mode == "P" else upright.convert("RGB")
    return np.asarray(colours).copy()


def resized(path: Path, pixels: Pixels, size: int, resize: Resize) -> Pixels:
    """An image at one size, shape (size, size, 3).

    Args:
        path: Where it is from, for errors.
        pixels: uint8 RGB, shape (height, width, 3).
        size: Height and width (pixels).
        resize: ``error``: it must have that size; ``crop``: the middle square is cut out and scaled to it;
            ``squash``: it is scaled to it whole, whatever its aspect. Scaling is bicubic with antialiasing.

    Raises:
        BadRecord: It is of another size where that is an error.
    """
    from PIL import Image

    height, width = pixels.shape[:2]
    if resize == "error" and (height, width) != (size, size):
        mend = "set data.resize to crop or squash, or data.size to the images' size"
        raise BadRecord(f"{path}: is {width} x {height} pixels, not {size} x {size}: {mend}")
    if resize == "crop":
        edge = min(width, height)
        left, top = (width - edge) // 2, (height - edge) // 2
        pixels = pixels[top : top + edge, left : left + edge]
    if pixels.shape[:2] == (size, size):
        return np.ascontiguousarray(pixels)
    return np.asarray(Image.fromarray(pixels).resize((size, size), Image.Resampling.BICUBIC)).copy()


def _is_deep(image: object) -> bool:
    """Whether the file has 16 bits a channel, which Pillow would cut to 8 for colours without a word."""
    return any(";16" in str(tile[-1]) for tile in getattr(image, "tile", ()))
