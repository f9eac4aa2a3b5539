"""Errors that a user can mend: one line that names the thing and says what to do."""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError


class FedlitError(ValueError):
    """Bad input or a state the run cannot go on from. The message names the file, field or client, and the mend."""


class Interrupted(FedlitError):
    """A run that had to stop, and goes on from its last committed round when asked to; exit code 3."""


@contextmanager
def writing(path: Path | str) -> Iterator[None]:
    """Turn what a full or read-only disk raises while a part of a run is written into an error that names it.

    Raises:
        FedlitError: The disk is full or ``path`` cannot be written.
    """
    try:
        yield
    except (OSError, SafetensorError) as error:  # safetensors has an error of its own for a full disk
        reason = getattr(error, "strerror", error)
        raise FedlitError(
            f"{path} could not be written ({reason}); the last committed round is intact. Free some space or make the "
            "folder writable, then resume with --ckpt_path last"
        ) from error


def first_line(error: BaseException) -> str:
    """An error of others in one line."""
    text = str(error).strip()
    return f"{type(error).__name__}: {text.splitlines()[0] if text else ''}"


@contextmanager
def from_folder(what: str, mend: str) -> Iterator[None]:
    """Turn whatever code or files out of a model's folder raise into an error that says what they said, and the mend.

    Args:
        what: Is at fault, for instance ``"the tokenizer of backbone 'x'"``.
        mend: What to do.

    Raises:
        FedlitError: Anything was raised.
    """
    try:
        yield
    except FedlitError:
        raise
    except Exception as error:
        said = " ".join(str(error).split())[:200]
        raise FedlitError(f"{what} cannot be used; it says {said!r} ({type(error).__name__}): {mend}") from error


@contextmanager
def named(rule: object) -> Iterator[None]:
    """Say which rule an error is of.

    Raises:
        FedlitError: One without its name was raised, or one of its methods is not there.
    """
    name = type(rule).__name__
    try:
        yield
    except FedlitError as error:
        raise error if name in str(error) else type(error)(f"{name}: {error}") from error
    except NotImplementedError as error:
        method = traceback.extract_tb(error.__traceback__)[-1].name
        raise FedlitError(f"{name} is no whole rule: it has no method `{method}`. Write it, or take another") from error
