"""Decoded values kept in a file."""

from __future__ import annotations

import errno

import numpy as np
import pytest

from fedlit.data.classification.value_store import ValueStore
from fedlit.errors import FedlitError


@pytest.mark.parametrize("in_file", [True, False])
def test_values_come_back_as_they_were(tmp_path, in_file):
    store = ValueStore(tmp_path / "cache" if in_file else None)
    kept = [np.arange(6, dtype=np.float32).reshape(2, 3), "a text", np.zeros((0, 2), np.uint8), np.ones(3, np.uint8)]
    assert [store.add(value) for value in kept] == [0, 1, 2, 3]
    for value, found in zip(kept, store.values(), strict=True):
        assert np.array_equal(value, found)
        assert getattr(found, "dtype", None) == getattr(value, "dtype", None)


def test_a_full_disk_is_one_clear_error(tmp_path):
    class Full:
        def tell(self):
            return 0

        def write(self, data):
            raise OSError(errno.ENOSPC, "No space left on device")

    store = ValueStore(tmp_path)
    store._file = Full()
    with pytest.raises(FedlitError, match=r"No space left on device: set data\.cache_folder"):
        store.add(np.ones(3))


def test_a_folder_that_cannot_be_made_is_one_clear_error(tmp_path):
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(FedlitError, match=r"data\.cache_folder"):
        ValueStore(tmp_path / "file" / "cache")
