"""Folders of weights: found on this machine or on the Hub, and read from safetensors alone."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn

from fedlit.backbones.rng import keyed_rng
from fedlit.errors import FedlitError, first_line

BUILTIN = Path(__file__).parent / "builtin"
STAND_IN = "stand-in:"
"""Before an architecture (``stand-in:vit``) in the name of a backbone: a tiny random network, asked for as such."""
SETTINGS = ("*.json", "*.jinja", "vocab.txt", "merges.txt", "tokenizer.model")
"""Files of settings and tokenizers."""


def local_folder(name: str) -> Path | None:
    """Where ``name`` points on this machine, or None for a Hub id.

    Raises:
        FedlitError: It is neither.
    """
    if name == "builtin":
        return BUILTIN
    if not name:
        raise FedlitError("backbone is empty: give 'builtin', a folder or a Hub id")
    path = Path(name).expanduser()
    if path.is_dir():
        return path
    if path.exists():
        raise FedlitError(f"backbone {name!r} is a file: give the folder that holds config.json and model.safetensors")
    if path.is_absolute() or name.startswith((".", "~")) or name.partition("@")[0].count("/") != 1:
        raise FedlitError(
            f"backbone {name!r}: no such folder (a Hub id is like amazon/chronos-bolt-tiny, what ships is builtin)"
        )
    return None


def find_folder(name: str, weights: bool = True) -> tuple[Path, str]:
    """The folder that a name stands for, fetched from the Hub when need be, and where it came from, for reports.

    Args:
        weights: The safetensors too, and not the settings alone.

    Raises:
        FedlitError: There is none, it cannot be had, or it does not hold what is needed.
    """
    folder = local_folder(name)
    source = "built-in stand-in, pretrained on synthetic series" if name == "builtin" else name
    if folder is None:
        folder = from_hub(name, [*SETTINGS, *["*.safetensors"] * weights])
        source = f"{name} at revision {folder.name}"
    if not (folder / "config.json").is_file():
        what = "a PEFT adapter, no backbone" if (folder / "adapter_config.json").is_file() else "no config.json"
        raise FedlitError(f"backbone {name!r}: {folder} holds {what}: give a folder that save_pretrained wrote")
    if weights and not any(folder.glob("*.safetensors")):
        raise FedlitError(
            f"backbone {name!r}: {folder} holds no .safetensors file; pickled weights are not read: run `fedlit "
            f"backbones convert {name} FOLDER` once and give that folder"
        )
    return folder, source


def from_hub(name: str, patterns: Sequence[str]) -> Path:
    """Where files of a Hub id lie on this machine; fetched when the cache lacks them.

    Asked for here and not through transformers, which asks for file after file, each with retries, and reads pickles.

    Args:
        name: It may end in ``@revision``: a branch, a tag, a commit, or ``refs/pr/7`` for a proposal.
        patterns: Of the files' names.

    Raises:
        FedlitError: They cannot be had.
    """
    from huggingface_hub import snapshot_download

    repository, _, revision = name.partition("@")
    try:
        return Path(snapshot_download(repository, revision=revision or None, allow_patterns=[*patterns]))
    except Exception as error:  # the Hub's client and its transport raise many kinds
        raise FedlitError(
            f"backbone {name!r} could not be had from the Hub ({first_line(error)}). Put a copy on this machine and "
            "give its folder, or set HF_ENDPOINT to a mirror or HF_HOME to a cache that has it; without one there are "
            f"builtin, for signals, and, to try things out, the likes of {STAND_IN}vit"
        ) from error


def read_json(path: Path) -> dict[str, Any]:
    """The settings in a file; none if there is no such file.

    Raises:
        FedlitError: It is no JSON object.
    """
    if not path.is_file():
        return {}
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise FedlitError(f"{path} is no JSON ({first_line(error)}): copy the file again") from error
    if not isinstance(found, dict):
        raise FedlitError(f"{path} holds a {type(found).__name__} where settings by name belong: copy the file again")
    return found


def read_network(name: str, folder: Path, kind: Any, unneeded: tuple[str, ...] = (), **settings: Any) -> nn.Module:
    """A transformers network with the folder's weights; float32, on the CPU, in evaluation mode.

    Args:
        kind: Its class.
        unneeded: Starts of the names of weights that may be absent.
        settings: For the class and its configuration; ``dtype`` for another than float32.

    Raises:
        FedlitError: The folder cannot be used, or does not hold all the weights.
    """
    from safetensors import SafetensorError

    options = {"use_safetensors": True, "local_files_only": True, "output_loading_info": True}
    settings = {"dtype": torch.float32} | settings
    with keyed_rng(0, "weights that are not in the file"), quiet():
        try:
            network, found = kind.from_pretrained(str(folder), **options, **settings)
        except (OSError, ValueError, RuntimeError, TypeError, SafetensorError) as error:
            raise FedlitError(f"backbone {name!r} is not a usable {kind.__name__}: {first_line(error)}") from error
    refuse_absent(name, (key for key in found["missing_keys"] if not key.startswith(unneeded)))
    loaded: nn.Module = network.eval()
    return loaded


def refuse_absent(name: str, absent: Iterable[str]) -> None:
    """Weights that no file holds would stay as the random initialisation made them.

    Raises:
        FedlitError: There are such weights; the first is named.
    """
    if names := sorted(absent):
        raise FedlitError(
            f"backbone {name!r}: {len(names)} of its weights are not in the file, first {names[0]!r}, and would stay "
            "random: copy the folder again"
        )


def absent_weights(folder: Path, network: nn.Module) -> list[str]:
    """Parameters that no file of the folder holds, under their own name or that of one they are tied to."""
    from safetensors import safe_open

    stored: set[str] = set()
    for path in folder.glob("*.safetensors"):
        with safe_open(path, framework="pt") as file:
            stored.update(file.keys())
    own = dict(network.named_parameters(remove_duplicate=False))
    loaded = {id(parameter) for name, parameter in own.items() if name in stored}
    return [name for name, parameter in own.items() if id(parameter) not in loaded]


@contextmanager
def quiet() -> Iterator[None]:
    """No progress bars and reports of transformers on weights: they load in a blink, and are checked here."""
    from transformers.utils import logging as transformers_logging

    logging: Any = transformers_logging
    shown, level = logging.is_progress_bar_enabled(), logging.get_verbosity()
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if shown:
            logging.enable_progress_bar()
