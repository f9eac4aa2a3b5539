"""Decoded values in a file in the place of memory."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from math import prod
from pathlib import Path
from typing import IO

import numpy as np
import numpy.typing as npt

from fedlit.data.base.records import Value
from fedlit.errors import FedlitError


class ValueStore:
    """Arrays appended to a file without a name, which the system removes with the process.

    Args:
        folder: Where the file is made; None keeps arrays in memory.
    """

    def __init__(self, folder: Path | None) -> None:
        self._kept: list[Value | tuple[int, tuple[int, ...], np.dtype]] = []
        self._folder = folder
        self._file: IO[bytes] | None = None
        if folder is not None:
            with self._writing():
                Path(folder).mkdir(parents=True, exist_ok=True)
                self._file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            mend = "set data.cache_folder to a folder that can be written to, with room for all values"
            raise FedlitError(f"{self._folder}: {error.strerror}: {mend}") from error

    def add(self, value: Value) -> int:
        """Keep a value; the number under which :meth:`values` gives it.

        Raises:
            FedlitError: The disk is full.
        """
        if self._file is None or not isinstance(value, np.ndarray):
            self._kept.append(value)
        else:
            self._kept.append((self._file.tell(), value.shape, value.dtype))
            with self._writing():
                self._file.write(np.ascontiguousarray(value).data)
        return len(self._kept) - 1

    def values(self) -> list[Value]:
        """All values, in the order of adding; arrays of a file cannot be written to."""
        flat = np.empty(0, np.uint8)
        if self._file is not None and self._file.tell():
            with self._writing():
                self._file.flush()
            flat = np.asarray(np.memmap(self._file, np.uint8, "r"))
        return [_array(flat, *kept) if isinstance(kept, tuple) else kept for kept in self._kept]


def _array(flat: npt.NDArray[np.uint8], start: int, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    return flat[start : start + prod(shape) * dtype.itemsize].view(dtype).reshape(shape)
