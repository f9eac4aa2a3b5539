"""DICOM images to 8-bit RGB, as a viewer shows them: rescaled, windowed, inverted where white is 0.

Only the elements that make the picture are read. What concerns the patient is never in memory, nor in an error:
messages of pydicom, which may repeat contents, are not passed on.
"""

from __future__ import annotations

import importlib.util
import logging
import struct
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from fedlit.data.base.records import BadRecord
from fedlit.errors import FedlitError

DicomWindow = Literal["file", "range", "percentile"] | list[float]
PERCENTILES = (1.0, 99.0)
ELEMENTS = (
    "SamplesPerPixel", "PhotometricInterpretation", "PlanarConfiguration", "NumberOfFrames", "Rows", "Columns",
    "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation", "PixelPaddingValue", "PixelPaddingRangeLimit",
    "RescaleSlope", "RescaleIntercept", "ModalityLUTSequence", "VOILUTSequence", "VOILUTFunction", "WindowCenter",
    "WindowWidth", "RedPaletteColorLookupTableDescriptor",
    "GreenPaletteColorLookupTableDescriptor", "BluePaletteColorLookupTableDescriptor",
    "RedPaletteColorLookupTableData", "GreenPaletteColorLookupTableData", "BluePaletteColorLookupTableData",
    "SegmentedRedPaletteColorLookupTableData", "SegmentedGreenPaletteColorLookupTableData",
    "SegmentedBluePaletteColorLookupTableData", "PixelData", "ExtendedOffsetTable", "ExtendedOffsetTableLengths",
)  # fmt: skip
"""Elements that are read; no other one is."""
GREYS = ("MONOCHROME1", "MONOCHROME2")
COLOURS = ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_PARTIAL_420", "YBR_ICT", "YBR_RCT")
_PREAMBLE = 128
_DECODERS = {
    "JPEG2000": "pylibjpeg pylibjpeg-openjpeg",
    "HTJ2K": "pylibjpeg pylibjpeg-openjpeg",
    "JPEG": "pylibjpeg pylibjpeg-libjpeg",
}

Image = npt.NDArray[np.uint8]
Values = npt.NDArray[np.float64]


def is_dicom(path: Path) -> bool:
    """Whether a file begins as DICOM does, whatever its ending; False where it cannot be opened."""
    try:
        with path.open("rb") as file:
            return file.read(_PREAMBLE + 4)[_PREAMBLE:] == b"DICM"
    except OSError:
        return False


def check_window(window: DicomWindow) -> None:
    """Refuse a window that cannot be.

    Raises:
        FedlitError: It is no word that is known, and no centre and width.
    """
    words = ("file", "range", "percentile")
    pair = isinstance(window, Sequence) and not isinstance(window, str) and len(window) == 2
    if not (window in words or (pair and np.isfinite(window).all() and float(window[1]) >= 1)):
        raise FedlitError(
            f"data.dicom_window is {window!r}: give {', '.join(words)}, or [centre, width], width 1 or more"
        )


def read_dicom(path: Path, window: DicomWindow = "file") -> tuple[Image, bool]:
    """A DICOM file with one image.

    Grey values are rescaled (slope and intercept, or a table of the file), windowed and brought to 0 to 255 by the
    formulas of PS3.3, C.11.2.1.2 and C.11.2.1.3; MONOCHROME1 is inverted. Palettes are looked up, YBR becomes RGB, and
    colours of more than 8 bits are scaled to 8. Pixels count as square.

    Args:
        path: A file with the mark of DICOM at byte 128.
        window: Which grey values become 0 to 255: the file's first window, or table, and where it has none the range of
            its values (``file``); that range always (``range``); from the 1st to the 99th percentile; or a centre and a
            width, in rescaled units. Padding is in no range.

    Returns:
        uint8 RGB, shape (height, width, 3); and whether ``file`` found no window and took the range.

    Raises:
        BadRecord: It cannot be read, holds no image, or several, or is of a kind that is not known.
        FedlitError: pydicom is not installed.
    """
    if importlib.util.find_spec("pydicom") is None:
        raise FedlitError(f"{path}: DICOM images need pydicom: pip install 'fedlit[dicom]'")
    with _quiet():
        found = _elements(path)
        frames = _frames(path, found)
        if frames > 1:
            raise BadRecord(f"{path}: holds {frames} frames, one is needed: save it as a file of its own")
        kind = str(found.get("PhotometricInterpretation", "")).strip()
        if kind not in (*GREYS, *COLOURS, "PALETTE COLOR"):
            known = ", ".join((*GREYS, "PALETTE COLOR", *COLOURS))
            said = "not" if kind else "absent, not"
            raise BadRecord(f"{path}: its photometric interpretation is {said} one of {known}: save it as one of these")
        pixels = _pixels(path, found)
        try:
            if kind in GREYS:
                return _grey(found, pixels, window, inverted=kind == "MONOCHROME1")
            return _coloured(found, pixels, kind), False
        except (AttributeError, KeyError, TypeError, ValueError, IndexError, OverflowError, struct.error):
            raise BadRecord(
                f"{path}: what it says of rescaling, windows or palettes cannot be read: mend the header, or leave the "
                f"record out"
            ) from None


def _elements(path: Path) -> Any:
    """The elements of a file that make its picture."""
    import pydicom

    try:
        found = pydicom.dcmread(path, specific_tags=list(ELEMENTS))
    except OSError as error:
        raise BadRecord(f"{path}: {error.strerror or 'cannot be read'}: copy it again") from None
    except Exception:  # pydicom raises many kinds on damaged files, with contents in their messages
        raise BadRecord(
            f"{path}: cannot be read as DICOM: copy it again, or save it as a DICOM file with its preamble"
        ) from None
    if "PixelData" not in found:
        raise BadRecord(f"{path}: holds no image (no pixel data): leave it out")
    return found


def _frames(path: Path, found: Any) -> int:
    try:
        return int(found.get("NumberOfFrames", 1) or 1)
    except (TypeError, ValueError, OverflowError):
        raise BadRecord(f"{path}: its number of frames cannot be read: mend the header") from None


def _pixels(path: Path, found: Any) -> npt.NDArray[Any]:
    """Stored values, (rows, columns) or (rows, columns, 3); YBR as RGB."""
    from pydicom.pixels.utils import pixel_array

    syntax = getattr(found.file_meta, "TransferSyntaxUID", None)
    name = "an unknown syntax" if syntax is None else syntax.name
    try:
        return np.asarray(pixel_array(found))
    except Exception:
        packed = syntax is not None and not syntax.is_private and syntax.is_compressed
        what = "its pixels are cut short or damaged: copy it again"
        if syntax is None:
            what = "says no transfer syntax: save it as a DICOM file"
        elif packed and not _has_decoder(syntax):
            plain = syntax.name.replace(" ", "").replace("-", "")
            package = next((p for word, p in _DECODERS.items() if word in plain), "pylibjpeg")
            what = f"its pixels are packed as {name}: pip install {package}, or save it unpacked"
    raise BadRecord(f"{path}: {what}")


def _has_decoder(syntax: Any) -> bool:
    from pydicom.pixels.decoders.base import get_decoder

    try:
        return bool(get_decoder(syntax).is_available)
    except NotImplementedError:
        return False


def _grey(found: Any, pixels: npt.NDArray[Any], window: DicomWindow, inverted: bool) -> tuple[Image, bool]:
    from pydicom.pixels.processing import apply_modality_lut, apply_voi_lut

    values = np.asarray(apply_modality_lut(pixels, found), np.float64)
    shown = values[~_padding(found, pixels)]
    shown = shown if shown.size else values.ravel()
    none = window == "file" and not _has_window(found) and "VOILUTSequence" not in found
    if window == "file" and "VOILUTSequence" in found and not _has_window(found):
        bits = int(found.VOILUTSequence[0].LUTDescriptor[2])
        grey = np.asarray(apply_voi_lut(np.asarray(apply_modality_lut(pixels, found)), found), np.float64)
        grey = grey / (2**bits - 1)
    elif window == "file" and not none:
        function = str(found.get("VOILUTFunction", "LINEAR") or "LINEAR")
        grey = windowed(values, _first(found.WindowCenter), _first(found.WindowWidth), function)
    elif isinstance(window, list):
        grey = windowed(values, float(window[0]), float(window[1]))
    else:
        low, high = (shown.min(), shown.max()) if window != "percentile" else np.percentile(shown, PERCENTILES)
        grey = np.clip((values - low) / max(high - low, np.finfo(np.float64).tiny), 0, 1)
    out = np.round(255 * (1 - grey if inverted else grey)).astype(np.uint8)
    return np.repeat(out[..., None], 3, axis=2), none


def windowed(values: Values, centre: float, width: float, function: str = "LINEAR") -> Values:
    """Values in a window, 0 to 1, by the functions of PS3.3, C.11.2.1.2 and C.11.2.1.3.

    Args:
        values: Any shape.
        centre: Of the window.
        width: At least 1 (LINEAR), or above 0.
        function: ``LINEAR``, ``LINEAR_EXACT`` or ``SIGMOID``.

    Raises:
        ValueError: The width or the function cannot be.
    """
    if not width >= (1 if function == "LINEAR" else 0) or function not in ("LINEAR", "LINEAR_EXACT", "SIGMOID"):
        raise ValueError(function)
    if function == "SIGMOID":
        return np.asarray(1 / (1 + np.exp(-4 * (values - centre) / width)))
    if function == "LINEAR_EXACT":
        return np.asarray(np.clip((values - centre) / width + 0.5, 0, 1))
    if width == 1:
        return np.asarray(values > centre - 0.5, np.float64)
    return np.asarray(np.clip((values - (centre - 0.5)) / (width - 1) + 0.5, 0, 1))


def _coloured(found: Any, pixels: npt.NDArray[Any], kind: str) -> Image:
    from pydicom.pixels.processing import apply_color_lut

    bits = int(found.BitsStored)
    if kind == "PALETTE COLOR":
        pixels = np.asarray(apply_color_lut(pixels, found))
        # Of 16 bits the upper eight are the colour: files write white as 0xFF00 or as 0xFFFF.
        return np.asarray(pixels[..., :3] >> 8 * (pixels.dtype.itemsize - 1), np.uint8)
    if bits == 8:
        return np.asarray(pixels[..., :3], np.uint8)
    return np.asarray(np.round(pixels[..., :3].astype(np.float64) * 255 / (2**bits - 1)), np.uint8)


def _padding(found: Any, pixels: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
    """Which stored values only fill up the picture."""
    if "PixelPaddingValue" not in found:
        return np.zeros(pixels.shape, np.bool_)
    ends = sorted([int(found.PixelPaddingValue), int(found.get("PixelPaddingRangeLimit", found.PixelPaddingValue))])
    return np.asarray((pixels >= ends[0]) & (pixels <= ends[1]))


def _has_window(found: Any) -> bool:
    return all(found.get(name) not in (None, "") for name in ("WindowCenter", "WindowWidth"))


def _first(value: Any) -> float:
    return float(value[0] if isinstance(value, Sequence) and not isinstance(value, str) else value)


@contextmanager
def _quiet() -> Iterator[None]:
    """Without pydicom's warnings and logs: both repeat what elements hold."""
    logger = logging.getLogger("pydicom")  # a level holds for its children too
    before = logger.level
    logger.setLevel(logging.CRITICAL + 1)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(before)
