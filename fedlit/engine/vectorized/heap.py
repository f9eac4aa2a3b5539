"""How the C library's allocator treats memory that was freed."""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Mapping

KEPT = 1 << 30
"""Bytes of freed memory at the end of the heap that stay with the process; what is freed below stays in any case."""
# Numbers of parameters, from glibc's malloc.h.
M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_MAX = -1, -2, -4


def keep_freed_memory(environment: Mapping[str, str] = os.environ) -> bool:
    """Let this process use memory again that it has freed, where glibc would give it back to the system.

    Activations of several clients are arrays of tens of MiB, which glibc takes from the system and gives back at each
    operation; the system clears each page anew. This costs as much as the arithmetic of elementwise operations. So all
    arrays lie on the heap, which shrinks only where more than :data:`KEPT` bytes at its end are free: the process keeps
    about as much as it once needed. It holds for the rest of the process.

    Args:
        environment: If ``MALLOC_*`` or ``GLIBC_TUNABLES`` in it set the allocator up, nothing is changed.

    Returns:
        Whether it was done; not on systems without glibc.
    """
    chosen = any(name.startswith("MALLOC_") or name == "GLIBC_TUNABLES" for name in environment)
    if chosen or sys.platform != "linux":
        return False
    set_parameter = getattr(ctypes.CDLL(None), "mallopt", None)
    if set_parameter is None:
        return False
    wanted = {M_MMAP_MAX: 0, M_TRIM_THRESHOLD: KEPT, M_TOP_PAD: KEPT // 8}
    return all(set_parameter(name, value) == 1 for name, value in wanted.items())
