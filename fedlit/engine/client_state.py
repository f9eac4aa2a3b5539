"""What clients keep between rounds: a file for each state, under a name that the server remembers."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from fedlit import codec
from fedlit.errors import FedlitError, writing
from fedlit.runs.disk import sync, write_synced
from fedlit.tree import Tree


@dataclass(frozen=True)
class Kept:
    """The state of one client.

    Attributes:
        memory: What the rule keeps, a Tree; None if it never kept anything.
        residual: What compression left out of earlier uploads, by path, see
            :class:`~fedlit.compression.channel.Channel`; None without error feedback. No rule sees it.
    """

    memory: Any = None
    residual: dict[str, Tensor] | None = None


class ClientStates:
    """States of clients in a folder: ``<client>/<round>-<digest>.safetensors``.

    A state is written under a name of its own and never changed. Which of a client's states counts is the server's to
    say: a reply carries the name of the state that goes with it, a committed round holds the names of all, and a job
    says which one to start from. So a reply that is refused, a server that dies before its commit and a site that dies
    after its reply need no undoing. Files in frequent use stay in RAM by the operating system's page cache.

    Args:
        folder: Where they lie; need not exist.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def read(self, client: str, name: str) -> Kept:
        """A client's state.

        Args:
            client: Its name.
            name: Of the state; empty for a client that has none yet.

        Raises:
            FedlitError: There is no state of this name, or it was altered.
        """
        if not name:
            return Kept()
        path = self._path(client, name)
        try:
            blob = path.read_bytes()
        except FileNotFoundError as error:
            raise FedlitError(
                f"{path}: the state that client {client!r} is to start from is not there: bring it back from a copy of "
                "the folder, or resume from another checkpoint"
            ) from error
        if digest(blob) != name.rpartition("-")[2]:
            raise FedlitError(f"{path}: torn or altered (its checksum differs): bring it back from a copy")
        held, paths = codec.decode(blob, str(path))
        if paths is None:
            return Kept(held)
        parts: Any = held
        return Kept(parts["memory"], {path: parts["residual"][str(i)] for i, path in enumerate(paths)})

    def keep(
        self,
        client: str,
        round: int,  # noqa: A002
        state: Kept,
        others: Collection[str] = (),
    ) -> str:
        """Write a state; it lasts when this returns.

        Args:
            client: Its name.
            round: Index of the round that made it, from 0.
            state: The state.
            others: Names of the client's states that must stay; any other is removed.

        Returns:
            The name.

        Raises:
            FedlitError: The disk is full or the file cannot be written.
        """
        if state.residual is None:
            blob = codec.encode(state.memory)
        else:
            paths = sorted(state.residual)
            numbered: Tree = {str(i): state.residual[path] for i, path in enumerate(paths)}
            blob = codec.encode({"memory": state.memory, "residual": numbered}, paths)
        name = f"{round:04d}-{digest(blob)}"
        path = self._path(client, name)
        with writing(path):
            if not path.parent.is_dir():
                path.parent.mkdir(parents=True, exist_ok=True)
                sync(self.folder)
                sync(self.folder.parent)
            draft = path.with_name(f".{path.name}")
            write_synced(draft, blob)
            os.replace(draft, path)
            sync(path.parent)
            for entry in os.listdir(path.parent):
                if entry.removesuffix(SUFFIX) not in (name, *others):
                    (path.parent / entry).unlink(missing_ok=True)
        return name

    def adopt(self, memories: Path, round: int) -> dict[str, str]:  # noqa: A002
        """Give the states of a run made before states had names their names.

        Args:
            memories: Folder of ``<client>.safetensors``.
            round: The committed round that they belong to.

        Returns:
            The names, by client.
        """
        names = {}
        for path in sorted(memories.glob(f"*{SUFFIX}")):
            client = path.name.removesuffix(SUFFIX)
            names[client] = f"{round:04d}-{digest(path.read_bytes())}"
            target = self._path(client, names[client])
            target.parent.mkdir(parents=True, exist_ok=True)
            with suppress(FileExistsError):  # ranks may do it side by side
                os.link(path, target)
            sync(target.parent)
        if names:
            sync(self.folder)
        return names

    def _path(self, client: str, name: str) -> Path:
        if not client or client.startswith(".") or {"/", os.sep} & {*client} or not NAME.fullmatch(name):
            raise FedlitError(f"{client!r} with the state {name!r}: no names under which a client's state could lie")
        return self.folder / client / f"{name}{SUFFIX}"


SUFFIX = ".safetensors"
NAME = re.compile(r"\d{4,}-[0-9a-f]{16}")


def digest(blob: bytes) -> str:
    """16 hexadecimal digits, in which the bytes of two states differ."""
    return hashlib.blake2b(blob, digest_size=8).hexdigest()
