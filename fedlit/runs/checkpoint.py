"""Rounds that last: one atomic commit each, from which a killed run goes on to the bytes of one that was not.

A committed round is a folder ``checkpoints/round-NNNN`` with ``state.safetensors`` (the server's) and ``meta.json``.
It is written under a temporary name, synced, renamed, and then the link ``last`` is moved to it. Until then the round
before stays as it was. What clients keep is no part of it: ``meta.json`` says which of their states count.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fedlit import codec
from fedlit.errors import FedlitError, writing
from fedlit.runs.disk import sync, write_synced
from fedlit.tree import Tree


@dataclass(frozen=True)
class Committed:
    """A round as read back."""

    round: int
    state: Tree
    meta: dict[str, Any]


class Checkpoints:
    """The checkpoint folder of one run.

    Args:
        folder: ``<run>/checkpoints``.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def memories(self, name: str = "last") -> list[Path]:
        """Folders of client states of a run made before states had names; later ones hold newer states."""
        folder = self.folder / name
        there = (folder / "before" / "memory", folder / "memory", folder / "changed")  # two of them after a kill
        return [path for path in there if path.is_dir()]

    def exists(self, name: str = "last") -> bool:
        """Whether any round was committed; :meth:`read` says if it is still whole."""
        return (self.folder / name).is_symlink()

    def clean(self) -> None:
        """Remove what a killed run left behind, and end a commit that had moved one of its two links."""
        for path in (*self.folder.glob(".round-*"), self.folder / ".link"):
            if path.is_symlink() or path.is_file():
                path.unlink()
            else:
                shutil.rmtree(path, ignore_errors=True)
        best, last = self._target("best"), self._target("last")
        if best is not None and last is not None and _number(best) > _number(last):
            self._link("last", self.folder / best)
            sync(self.folder)

    def commit(self, round: int, state: Tree, meta: dict[str, Any], best: bool = False) -> None:  # noqa: A002
        """Make a round durable; afterwards ``last`` (and, if asked, ``best``) is this round.

        Raises:
            FedlitError: The disk is full or the folder cannot be written; the round before is intact.
        """
        final = self.folder / f"round-{round:04d}"
        draft = self.folder / f".round-{round:04d}"
        with writing(draft), _undone(draft):
            shutil.rmtree(draft, ignore_errors=True)
            draft.mkdir(parents=True)
            blob = codec.encode(state)
            write_synced(draft / "state.safetensors", blob)
            meta = {**meta, "round": round, "state_sha256": hashlib.sha256(blob).hexdigest()}
            write_synced(draft / "meta.json", json.dumps(meta, indent=1, sort_keys=True).encode())
            sync(draft)
            if final.exists():  # of a run whose link was not moved before it was killed
                shutil.rmtree(final)
            os.rename(draft, final)
            if best:  # first: whoever goes on after a kill between the two finds this round whole, see `clean`
                self._link("best", final)
            self._link("last", final)
            sync(self.folder)
        keep = {self._target("last"), self._target("best")}
        for path in self.folder.glob("round-*"):
            if path.name not in keep:
                shutil.rmtree(path, ignore_errors=True)

    def read(self, name: str = "last") -> Committed:
        """A committed round.

        Raises:
            FedlitError: There is none, or its files were altered.
        """
        return read(self.folder / name)

    def _target(self, name: str) -> str | None:
        link = self.folder / name
        return os.readlink(link) if link.is_symlink() else None

    def _link(self, name: str, target: Path) -> None:
        temporary = self.folder / ".link"
        temporary.unlink(missing_ok=True)
        temporary.symlink_to(target.name)
        os.replace(temporary, self.folder / name)


def _number(round_folder: str) -> int:
    return int(round_folder.rpartition("-")[2])


def read(folder: Path) -> Committed:
    """The committed round in ``folder``.

    Raises:
        FedlitError: It holds none, or its files were altered.
    """
    try:
        meta = json.loads((folder / "meta.json").read_text())
        blob = (folder / "state.safetensors").read_bytes()
    except FileNotFoundError as error:
        raise FedlitError(f"{folder}: no committed round here (it has no {Path(error.filename).name})") from error
    except json.JSONDecodeError as error:
        raise FedlitError(f"{folder}/meta.json: not JSON ({error}): resume from another round") from error
    if hashlib.sha256(blob).hexdigest() != meta.get("state_sha256"):
        raise FedlitError(f"{folder}/state.safetensors: torn or altered (its checksum differs): use another checkpoint")
    state, _ = codec.decode(blob, str(folder / "state.safetensors"))
    return Committed(meta["round"], state, meta)


@contextmanager
def _undone(draft: Path) -> Iterator[None]:
    """Remove a draft that could not be finished, so that it does not fill the disk."""
    try:
        yield
    except OSError:
        shutil.rmtree(draft, ignore_errors=True)
        raise
