"""Decoded values in a file in the place of memory."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from fedlit.errors import FedlitError


class ValueStore:
    """Arrays appended to a file without a name, which the system removes with the process.

    Args:
        folder: Where the file is made; None keeps arrays in memory.
    """

    def __init__(self, folder: Path | None) -> None:
        self._arrays: list[Any] = []
        self._folder = folder
        self._file: Any = None
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

    def add(self, value: Any) -> int:
        """Keep a value; the number under which :meth:`values` gives it.

        Raises:
            FedlitError: The disk is full.
        """
        if self._file is None or not isinstance(value, np.ndarray):
            self._arrays.append(value)
        else:
            self._arrays.append((self._file.tell(), value.shape, value.dtype))
            with self._writing():
                self._file.write(np.ascontiguousarray(value).data)
        return len(self._arrays) - 1

    def values(self) -> list[Any]:
        """All values, in the order of adding; arrays of a file cannot be written to."""
        if self._file is None or not self._file.tell():
            return self._arrays
        with self._writing():
            self._file.flush()
        flat = np.memmap(self._file, np.uint8, "r")
        return [
            np.asarray(flat[v[0] : v[0] + prod(v[1]) * v[2].itemsize]).view(v[2]).reshape(v[1])
            if isinstance(v, tuple)
            else v
            for v in self._arrays
        ]
