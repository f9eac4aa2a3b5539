"""Jobs and replies as bytes: the length of a JSON header, the header, the payloads one after the other."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, fields
from typing import Any

from fedlit.errors import FedlitError
from fedlit.transports.base import Job, Reply


def framed(head: Any) -> bytes:
    """The length of something as JSON, and the JSON."""
    text = json.dumps(head).encode()
    return len(text).to_bytes(8, "little") + text


def opened(blob: bytes) -> tuple[Any, int]:
    """The inverse of :func:`framed`: what was framed, and where it ends."""
    end = 8 + int.from_bytes(blob[:8], "little")
    return json.loads(blob[8:end]), end


def pack(messages: Iterable[Job | Reply]) -> bytes:
    """Jobs or replies as bytes."""
    messages = list(messages)
    heads = [{**asdict(m), "payload": len(m.payload)} for m in messages]
    return framed(heads) + b"".join(m.payload for m in messages)


def unpack(blob: bytes) -> Iterator[Reply]:
    """Replies from what :func:`pack` gave.

    Raises:
        FedlitError: In the place of replies there is an error.
    """
    heads, at = opened(blob)
    if isinstance(heads, dict):
        raise FedlitError(heads["error"])
    for head in heads:
        size = head.pop("payload")
        yield Reply(payload=blob[at : at + size], **head)
        at += size


def unpack_jobs(blob: bytes) -> Iterator[Job]:
    """Jobs from what :func:`pack` gave.

    Raises:
        FedlitError: A job holds what this version does not know.
    """
    heads, at = opened(blob)
    known = {field.name for field in fields(Job)}
    for head in heads:
        if unknown := sorted(head.keys() - known):
            raise FedlitError(f"a job holds {', '.join(unknown)}, which is new: give this site the server's fedlit")
        size = head.pop("payload")
        lists = {name: tuple(value) for name, value in head.items() if isinstance(value, list)}
        yield Job(payload=blob[at : at + size], **{**head, **lists})
        at += size
