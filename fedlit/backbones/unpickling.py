"""A program: one pickle of weights, written as safetensors.

:mod:`fedlit.backbones.conversion` runs it in a process of its own, for a pickle can ask for any code. ``weights_only``
lets it ask for tensors and for nothing else. Should that ever fail: the process has an empty network where Linux lets
it, Python's sockets and new processes are refused everywhere, memory is bounded on Linux, and the environment holds no
credentials.
"""

from __future__ import annotations

import ctypes
import os
import pickle
import re
import sys
from collections.abc import Mapping
from typing import Any

NEW_NETWORK, NEW_USER = 0x40000000, 0x10000000  # of Linux's unshare(2)
REFUSED = ("socket.", "subprocess.", "os.system", "os.exec", "os.fork", "os.posix_spawn", "pty.spawn")
"""Starts of the names of Python's audit events that end the program."""
SLACK = 1 << 31
"""Bytes of memory above four times the file's: tensors, copies of those that share some, and the output take three."""
RENAMED = {"LayerNorm.gamma": "LayerNorm.weight", "LayerNorm.beta": "LayerNorm.bias"}
"""Ends of names that checkpoints of 2018 and 2019 have, and what transformers takes them for."""


class Refused(Exception):
    """The file is not what is read here; the text goes on after the file's name."""


def leave_network() -> None:
    """A network of this process's own, with nothing in it, where that is allowed; before there are threads."""
    if sys.platform == "linux":
        unshare = ctypes.CDLL(None).unshare
        if unshare(NEW_NETWORK):
            unshare(NEW_NETWORK | NEW_USER)


def refuse_events(event: str, _: Any) -> None:
    """An audit hook."""
    if event.startswith(REFUSED):
        raise Refused(f"tried to use {event}, which was stopped")


def bound_memory(size: int) -> None:
    """At most so much more than now; ``size``: bytes of the file."""
    if sys.platform == "linux":
        import resource

        with open("/proc/self/statm") as status:
            now = int(status.read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_AS, (now + 4 * size + SLACK,) * 2)


def is_of_memory(error: Exception) -> bool:
    """Whether there was not enough; PyTorch has no class for it on the CPU."""
    return isinstance(error, MemoryError) or "allocate memory" in str(error)


def named(name: str) -> str:
    """A tensor's name as transformers has it today."""
    old = next((end for end in RENAMED if name.endswith(end)), None)
    return name.removesuffix(old) + RENAMED[old] if old else name


def read(path: str) -> dict[str, Any]:
    """Tensors by name, each contiguous and with memory of its own, in their own dtypes.

    Raises:
        Refused: The file asks for code, or is not whole, or holds something else.
    """
    import torch

    try:
        held = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if asked := re.search(r"(?:GLOBAL|global) `?([\w.]+)", str(error)):
            raise Refused(f"asks for {asked[1]}, which is no tensor: refused, and nothing of it was run") from None
        raise Refused("is no whole file of weights") from None
    except (EOFError, OSError, ValueError, KeyError, AttributeError, TypeError, IndexError):
        raise Refused("is no whole file of weights") from None
    except RuntimeError as error:
        raise error if is_of_memory(error) else Refused("is no whole file of weights") from None
    if not isinstance(held, Mapping) or not held:
        raise Refused(f"holds a {type(held).__name__} where tensors by name belong")
    out: dict[str, Any] = {}
    seen: set[int] = set()
    for name, value in held.items():
        if not isinstance(name, str) or not isinstance(value, torch.Tensor) or value.layout is not torch.strided:
            raise Refused(f"holds {type(value).__name__} {str(name)[:80]!r} where tensors by name belong")
        if named(name) in out:
            raise Refused(f"holds {named(name)} under its old name and its new one")
        whole = value.detach().contiguous()
        shares = whole.untyped_storage().data_ptr() in seen or whole.untyped_storage().nbytes() != whole.nbytes
        # tied weights are written once for each name: which one a network looks for depends on its class
        out[named(name)] = whole = whole.clone() if shares else whole
        seen.add(whole.untyped_storage().data_ptr())
    return out


def main(source: str, target: str) -> None:
    """Read one file and write the other."""
    leave_network()
    import torch
    from safetensors.torch import save_file

    torch.set_num_threads(1)
    bound_memory(os.path.getsize(source))
    sys.addaudithook(refuse_events)
    save_file(read(source), target, metadata={"format": "pt"})


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except Refused as refused:
        sys.exit(str(refused))
    except (MemoryError, RuntimeError) as error:
        if not is_of_memory(error):
            raise
        sys.exit("needs more memory than its size accounts for, or than there is")
