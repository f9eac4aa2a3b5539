"""Which rows of a table follow on each other."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    import pandas as pd

Places = npt.NDArray[np.int64]


def subjects_rows(names: pd.Series[Any]) -> dict[str, list[Places]]:
    """Rows of each subject of a table without a clock, in the stretches that follow on each other.

    Where the subject changes with most rows (half of the blocks of one subject are a single row), the table is taken as
    written row by row for several subjects at once, and each subject's rows are one stretch. Else each block is.

    Args:
        names: The subject of each row.

    Returns:
        Positions of rows, in order, by subject, in order of their first rows.
    """
    import pandas as pd

    codes, unique = pd.factorize(names)
    order = np.argsort(codes, kind="stable")
    whole = np.split(order, np.flatnonzero(np.diff(codes[order])) + 1)
    starts = np.concatenate([[0], np.flatnonzero(np.diff(codes)) + 1])
    lengths = np.diff(np.append(starts, len(codes)))
    if np.median(lengths) < 2:
        return {str(name): [rows] for name, rows in zip(unique, whole, strict=True)}
    return {
        str(name): np.split(rows, np.flatnonzero(np.diff(rows) > 1) + 1)
        for name, rows in zip(unique, whole, strict=True)
    }
