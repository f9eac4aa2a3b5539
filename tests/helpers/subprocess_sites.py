"""Sites in processes of their own: each has its own data module and its own folder, and sees nothing but bytes.

Jobs and replies cross a socket pair, framed by their length. The process of the server never makes the data of a
client, and a site's process makes those of its own client alone. This is a proof, and the pattern for a transport that
works between machines: what another engine would have to carry is :meth:`SubprocessSites.run` and
:meth:`SubprocessSites.describe`.
"""

from __future__ import annotations

import json
import os
import select
import socket
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from fedlit.errors import FedlitError
from fedlit.transports import Description, Job, Reply
from fedlit.transports.wire import pack, unpack, unpack_jobs

HERE = Path(__file__).parent


def send(channel: socket.socket, kind: str, blob: bytes = b"") -> None:
    head = json.dumps({"kind": kind, "bytes": len(blob)}).encode()
    channel.sendall(len(head).to_bytes(4, "little") + head + blob)


def receive(channel: socket.socket) -> tuple[str, bytes]:
    """The next message.

    Raises:
        EOFError: The other end is gone.
    """
    head = json.loads(_exactly(channel, int.from_bytes(_exactly(channel, 4), "little")))
    return head["kind"], _exactly(channel, head["bytes"])


def _exactly(channel: socket.socket, count: int) -> bytes:
    parts: list[bytes] = []
    while count:
        part = channel.recv(min(count, 1 << 20))
        if not part:
            raise EOFError
        parts.append(part)
        count -= len(part)
    return b"".join(parts)


class SubprocessSites:
    """One process for each client.

    Args:
        clients: Their names.
        spec: What a site makes its rules, task, data and settings of: see :mod:`site_process`.
        folder: Each site keeps its states in a folder below it.
        keep_alive: Start a site again that has died, before it is asked the next time.
    """

    def __init__(self, clients: Iterable[str], spec: dict[str, Any], folder: Path, keep_alive: bool = True) -> None:
        self.spec, self.folder, self.keep_alive = spec, folder, keep_alive
        self.channels: dict[str, socket.socket] = {}
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self.clients = list(clients)
        for client in self.clients:
            self._start(client)

    local = None

    def _start(self, client: str) -> None:
        mine, theirs = socket.socketpair()
        told = json.dumps({**self.spec, "client": client, "folder": str(self.folder / client)})
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join([str(HERE), *sys.path])}
        command = [sys.executable, str(HERE / "site_process.py"), str(theirs.fileno()), told]
        self.processes[client] = subprocess.Popen(command, pass_fds=[theirs.fileno()], env=environment)
        theirs.close()
        self.channels[client] = mine

    def close(self) -> None:
        for process in self.processes.values():
            process.kill()
            process.wait()
        for channel in self.channels.values():
            channel.close()

    def describe(self) -> list[Description]:
        self._awake()
        for client in self.clients:
            send(self.channels[client], "describe")
        return [Description(**json.loads(self._answer(client))) for client in self.clients]

    def _answer(self, client: str) -> bytes:
        kind, blob = receive(self.channels[client])
        if kind == "error":
            raise FedlitError(f"site {client}: {blob.decode()}")
        return blob

    def _awake(self) -> None:
        for client, process in self.processes.items():
            if process.poll() is not None and self.keep_alive:
                self.channels[client].close()
                self._start(client)

    def run(self, jobs: Iterable[Job], deadline_s: float | None = None) -> Iterator[Reply]:
        """Replies as they come; a site that dies or is late is missing."""
        self._awake()
        waiting: dict[socket.socket, Job] = {}
        for job in jobs:
            channel = self.channels[job.client]
            try:
                send(channel, "job", pack([job]))
                waiting[channel] = job
            except (BrokenPipeError, ConnectionResetError):  # it died meanwhile
                continue
        until = None if deadline_s is None else time.monotonic() + deadline_s
        while waiting:
            left = None if until is None else max(0.0, until - time.monotonic())
            ready, _, _ = select.select(list(waiting), [], [], left)
            if not ready:
                return
            for channel in ready:
                job = waiting[channel]
                try:
                    (reply,) = unpack(self._answer(job.client))
                except (EOFError, ConnectionResetError):
                    del waiting[channel]
                    continue
                if reply.ticket == job.ticket:  # and not one that comes too late for an earlier job
                    del waiting[channel]
                    yield reply


def serve(channel: socket.socket, sites: Any) -> None:
    """Answer until the server is gone."""
    while True:
        try:
            kind, blob = receive(channel)
        except (EOFError, ConnectionResetError):
            return
        try:
            if kind == "describe":
                (described,) = sites.describe()
                send(channel, "described", json.dumps(asdict(described)).encode())
            else:
                send(channel, "reply", pack(sites.run(unpack_jobs(blob))))
        except FedlitError as error:
            send(channel, "error", str(error).encode())
