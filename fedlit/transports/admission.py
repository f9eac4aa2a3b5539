"""What the server accepts: an answer to its own job, of the tree it asked for, finite, bounded, once."""

from __future__ import annotations

import math
from collections.abc import Callable
from tempfile import SpooledTemporaryFile, gettempdir
from typing import IO

import torch

from fedlit import codec, tree
from fedlit.aggregators import Update
from fedlit.compression import Channel
from fedlit.errors import FedlitError, writing
from fedlit.transports.base import Job, Reply
from fedlit.tree import Tree

MAX_WEIGHT = 1e12
DTYPES = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16, "I64": torch.int64,
    "I32": torch.int32, "I8": torch.int8, "U8": torch.uint8, "BOOL": torch.bool,
}  # fmt: skip


class Refused(FedlitError):
    """A reply that does not count, and why."""


def admit(payload: bytes, like: Tree, name: str) -> Tree:
    """The upload, if it has exactly the names, shapes and dtypes of ``like`` and is finite.

    The header and the length are checked before a tensor is read.

    Raises:
        Refused: It is not so; the message says what was seen and what was expected.
    """
    want = tree.flatten(like)
    try:
        head = codec.header(payload, name)
    except FedlitError as error:
        raise Refused(str(error)) from error
    head.pop("__metadata__", None)
    if head.keys() != want.keys():
        raise Refused(f"{name}: tensors differ from those asked for in {sorted(head.keys() ^ want.keys())[:3]}")
    expected = 8 + int.from_bytes(payload[:8], "little") + sum(t.numel() * t.element_size() for t in want.values())
    if len(payload) != expected:
        raise Refused(f"{name}: {len(payload)} bytes, expected {expected}")
    for path, t in want.items():
        seen = head[path] if isinstance(head[path], dict) else {}
        if seen.get("shape") != list(t.shape) or DTYPES.get(str(seen.get("dtype"))) != t.dtype:
            raise Refused(
                f"{name}: {path} is {seen.get('dtype')}{seen.get('shape')}, expected {t.dtype}{list(t.shape)}"
            )
    try:
        got = codec.decode(payload, name)[0]
    except FedlitError as error:
        raise Refused(str(error)) from error
    if sorted(tree.empty_paths(got)) != sorted(tree.empty_paths(like)):
        raise Refused(f"{name}: other parts of it are empty than of what was asked for")
    if (bad := tree.not_finite(got)) is not None:
        raise Refused(f"{name}: {bad} is not finite")
    return got


class Inbox:
    """The replies of one round: each job is answered at most once, and uploads wait on disk once they are many.

    Args:
        budget_bytes: Uploads held in RAM; beyond it they go to a temporary file, so that memory does not grow with
            the number of clients.
        channel: What uploads went through. They wait as they were sent.
    """

    def __init__(self, budget_bytes: int = 64 << 20, channel: Channel | None = None) -> None:
        self.channel = channel or Channel()
        self._outline: tuple[Tree, Tree] | None = None
        self._open: dict[str, tuple[str, Callable[[], Tree]]] = {}
        self._file: IO[bytes] = SpooledTemporaryFile(budget_bytes)  # noqa: SIM115 - closed by close()
        self.updates: list[Update] = []
        self.admitted: set[str] = set()
        self.refused: dict[str, str] = {}

    def expect(self, job: Job, like: Callable[[], Tree]) -> None:
        """Register a job before it is sent; ``like`` gives a tree like its upload."""
        self._open[job.ticket] = (job.client, like)

    def receive(self, reply: Reply) -> bool:
        """Take a reply in; False if it was refused, for the reason then found in ``refused``."""
        try:
            self._receive(reply)
        except Refused as error:
            self.refused[reply.client] = str(error)
            return False
        return True

    def _receive(self, reply: Reply) -> None:
        name = f"reply of {reply.client!r}"
        client, like = self._open.get(reply.ticket, (None, None))
        if client != reply.client or like is None:
            raise Refused(f"{name}: no open job of this round has its ticket")
        del self._open[reply.ticket]
        if reply.error is not None:
            raise Refused(f"{name}: {reply.error}")
        weight = reply.weight
        if isinstance(weight, bool) or not (isinstance(weight, int | float) and 0 <= weight <= MAX_WEIGHT):
            raise Refused(f"{name}: weight {weight!r} is not a number from 0 to {MAX_WEIGHT:g}")
        loss = reply.metrics.get("train_loss")
        if not isinstance(loss, int | float) or not math.isfinite(loss):
            raise Refused(f"{name}: its local loss became {loss}")
        form = self._form(like())
        kept = form if self.channel.transforms else {}
        self._decoded(admit(reply.payload, self.channel.wire(form), name), form, name)
        for figure in self.channel.figures:
            value = reply.metrics.get(figure)
            if not isinstance(value, int | float) or not math.isfinite(value):
                raise Refused(f"{name}: its {figure} became {value}")
        length = len(reply.payload)
        with writing(f"the temporary file of updates in {gettempdir()}"):
            start = self._file.seek(0, 2)
            self._file.write(reply.payload)
        self.admitted.add(reply.client)
        self.updates.append(Update(reply.client, weight, lambda: self._read(start, length, kept, name), reply.metrics))

    def _form(self, like: Tree) -> Tree:
        """A tree like the upload; without its values where it is kept for decoding, once for all that share it."""
        if not self.channel.transforms:
            return like
        if self._outline is None or self._outline[0] is not like:
            self._outline = (like, self.channel.outline(like))
        return self._outline[1]

    def _decoded(self, wire: Tree, form: Tree, name: str) -> Tree:
        try:
            upload: Tree = self.channel.decode(wire, form)
        except FedlitError as error:
            raise Refused(f"{name}: {error}") from error
        if self.channel.transforms and (bad := tree.not_finite(upload)) is not None:
            raise Refused(f"{name}: {bad} is not finite")
        return upload

    def _read(self, start: int, length: int, form: Tree, name: str) -> Tree:
        self._file.seek(start)
        return self._decoded(codec.decode(self._file.read(length), name)[0], form, name)

    def missing(self) -> list[str]:
        """Clients that did not answer: their job is still open, and nothing of theirs was refused."""
        return sorted(client for client, _ in self._open.values() if client not in self.refused)

    def close(self) -> None:
        """Let the uploads go."""
        self._file.close()
