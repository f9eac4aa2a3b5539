"""What clients keep between rounds: one safetensors file each, so that memory does not grow with their number."""

from __future__ import annotations

from pathlib import Path

from fedlit import codec
from fedlit.errors import writing
from fedlit.tree import Tree


class ClientMemory:
    """Client memories on disk, committed with the round that made them.

    A client's new memory waits in ``staging`` until the checkpoint of its round takes the folder over; a reader sees
    the newest. Files in frequent use stay in RAM by the operating system's page cache.

    Args:
        committed: Folder of the last committed round's memories; need not exist.
        staging: Folder for those of the round under way.
    """

    def __init__(self, committed: Path, staging: Path) -> None:
        self.committed, self.staging = committed, staging

    def read(self, client: str) -> Tree | None:
        """The client's newest memory, or None if it never kept any."""
        for folder in (self.staging, self.committed):
            path = folder / f"{client}.safetensors"
            if path.exists():
                return codec.decode(path.read_bytes(), str(path))[0]
        return None

    def stage(self, client: str, memory: Tree) -> None:
        """Keep what a client would remember, if its reply is admitted.

        Raises:
            FedlitError: The disk is full or the file cannot be written.
        """
        path = self.staging / f"{client}.safetensors"
        with writing(path):
            self.staging.mkdir(parents=True, exist_ok=True)
            path.write_bytes(codec.encode(memory))

    def discard(self, client: str) -> None:
        """Forget what was staged: its reply was refused, and the client stays as it was."""
        (self.staging / f"{client}.safetensors").unlink(missing_ok=True)
