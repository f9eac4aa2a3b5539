"""Variables of a MATLAB file, of whatever version."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt

from fedlit.data.base.records import BadRecord


def read_variables(path: Path, choose: Callable[[list[str]], list[str]]) -> dict[str, npt.NDArray[np.float64]]:
    """Numeric variables, each flattened to ``(values,)``; only those wanted are read.

    Args:
        path: ``.mat`` of version 5 (scipy) or 7.3 (HDF5).
        choose: From the names of all variables in the file to the names of those wanted.

    Raises:
        BadRecord: If the file cannot be read, or a wanted variable is not numeric.
    """
    from scipy.io import loadmat, whosmat

    try:
        try:
            wanted = choose([name for name, _, _ in whosmat(str(path))])
            found = loadmat(str(path), squeeze_me=True, variable_names=wanted)
        except NotImplementedError:  # how scipy says version 7.3
            import h5py

            with h5py.File(path) as file:
                wanted = choose(list(file))
                found = {name: np.asarray(file[name]) for name in wanted}
        return {name: np.asarray(found[name], np.float64).ravel() for name in wanted}
    except BadRecord:
        raise
    except Exception as error:  # scipy and h5py raise many kinds on damaged files
        what = " ".join(str(error).split())[:160] or type(error).__name__
        raise BadRecord(f"{path}: cannot be read as a MATLAB file ({what}): copy the file again") from error
