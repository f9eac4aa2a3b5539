"""What clients keep between rounds: one safetensors file each, so that memory does not grow with their number."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import Tensor

from fedlit import codec
from fedlit.errors import writing
from fedlit.tree import Tree


class ClientMemory:
    """Client memories on disk, committed with the round that made them.

    A client's new memory waits in ``staging`` until the checkpoint of its round takes the folder over; a reader sees
    the newest. Files in frequent use stay in RAM by the operating system's page cache. Beside what the rule keeps,
    a file may hold the residual of :class:`~fedlit.compression.Channel`, which no rule sees.

    Args:
        committed: Folder of the last committed round's memories; need not exist.
        staging: Folder for those of the round under way.
    """

    def __init__(self, committed: Path, staging: Path) -> None:
        self.committed, self.staging = committed, staging

    def read(self, client: str) -> Tree | None:
        """The client's newest memory, or None if it never kept any."""
        kept, paths = self._read(client)
        memory: Tree | None = kept if paths is None else kept["memory"]
        return memory

    def residual(self, client: str) -> dict[str, Tensor] | None:
        """What compression kept of the client's uploads, by path; None if there is none."""
        kept, paths = self._read(client)
        return None if paths is None else {path: kept["residual"][str(i)] for i, path in enumerate(paths)}

    def _read(self, client: str) -> tuple[Any, list[str] | None]:
        """What a file holds, and the residual's paths."""
        for folder in (self.staging, self.committed):
            path = folder / f"{client}.safetensors"
            if path.exists():
                return codec.decode(path.read_bytes(), str(path))
        return None, None

    def stage(self, client: str, memory: Tree, residual: dict[str, Tensor] | None = None) -> None:
        """Keep what a client would remember, if its reply is admitted.

        Args:
            client: Its name.
            memory: Of the rule.
            residual: Of compression, by path.

        Raises:
            FedlitError: The disk is full or the file cannot be written.
        """
        path = self.staging / f"{client}.safetensors"
        with writing(path):
            self.staging.mkdir(parents=True, exist_ok=True)
            if residual is None:
                path.write_bytes(codec.encode(memory))
            else:
                paths = sorted(residual)
                numbered: Tree = {str(i): residual[path] for i, path in enumerate(paths)}
                path.write_bytes(codec.encode({"memory": memory, "residual": numbered}, paths))

    def discard(self, client: str) -> None:
        """Forget what was staged: its reply was refused, and the client stays as it was."""
        (self.staging / f"{client}.safetensors").unlink(missing_ok=True)
