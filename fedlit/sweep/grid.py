"""The grid of a sweep: the meaning of ``--vary`` and ``--seeds``, and the names of cells."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from typing import Any

from fedlit.errors import FedlitError

FIXED = {
    "config": "give several configurations to several sweeps",
    "ckpt_path": "a sweep goes on by itself where it stopped",
    "seed_everything": "give --seeds",
    "trainer.name": "give --name",
    "trainer.default_root_dir": "a sweep has one folder",
    "trainer.baselines": "vary aggregator over the baselines instead",
}
"""Keys that cannot be varied, and what to do instead."""

LONGEST = 100
"""Characters of a folder's name before the seed; W&B takes 128 for the name of a run."""


def split(text: str) -> list[str]:
    """A text cut at its commas, but not within brackets, braces or quotes.

    Raises:
        FedlitError: A bracket or quote is not closed.
    """
    parts, closing, quote = [""], [], ""
    for character in text:
        if quote:
            quote = "" if character == quote else quote
        elif character in "'\"" and parts[-1].rstrip()[-1:] in ("", *"[{(,:"):  # not an apostrophe
            quote = character
        elif character in "[{(":
            closing.append({"[": "]", "{": "}", "(": ")"}[character])
        elif character in "]})":
            if not closing or closing.pop() != character:
                raise FedlitError(f"{text!r}: {character!r} closes nothing")
        elif character == "," and not closing:
            parts.append("")
            continue
        parts[-1] += character
    if closing or quote:
        raise FedlitError(f"{text!r}: {quote or closing[-1]!r} is missing at the end")
    return [part.strip() for part in parts]


def varied(texts: Sequence[str]) -> dict[str, list[str]]:
    """``{key: values}`` of all ``--vary key=value,value``.

    Raises:
        FedlitError: A text has another form, a value is empty, or a key is given twice or cannot be varied.
    """
    out: dict[str, list[str]] = {}
    for text in texts:
        key, equals, values = text.partition("=")
        key = key.strip().removeprefix("--")
        if not equals or not key:
            raise FedlitError(f"--vary {text}: write --vary key=value,value")
        if key in FIXED:
            raise FedlitError(f"--vary {key}: {FIXED[key]}")
        if key in out:
            raise FedlitError(f"--vary {key} is given twice: put all values in one")
        try:
            out[key] = split(values)
        except FedlitError as error:
            raise FedlitError(f"--vary {key}: {error}") from error
        if "" in out[key]:
            raise FedlitError(f"--vary {text}: a value is empty (write null for none)")
        if twice := [value for value in out[key] if out[key].count(value) > 1]:
            raise FedlitError(f"--vary {key}: {twice[0]} is given twice")
    return out


def seeds(text: str) -> list[int]:
    """Seeds of ``--seeds``: ``3`` gives 0, 1, 2; a text with a comma lists them, ``5,7``, or ``5,`` for a single one.

    Raises:
        FedlitError: The text has neither form, or a seed is given twice.
    """
    parts = [part.strip() for part in text.split(",")]
    single = len(parts) == 1
    given = parts if single or parts[-1] else parts[:-1]
    if not all(part.isdecimal() for part in given) or (single and int(given[0]) < 1) or len(set(given)) < len(given):
        raise FedlitError(f"--seeds {text!r}: give how many (3: seeds 0, 1, 2) or which, each once (5,7)")
    return list(range(int(given[0]))) if single else [int(part) for part in given]


def label(value: str) -> str:
    """A value as titles show it; a class with arguments is ``FedProx(mu=0.1)``."""
    loaded = _load(value)
    if not isinstance(loaded, dict) or "class_path" not in loaded:
        return str(loaded) if isinstance(loaded, str) else value
    name = str(loaded["class_path"]).rsplit(".", 1)[-1]
    arguments = loaded.get("init_args") or {}
    return name + (f"({', '.join(f'{k}={v}' for k, v in arguments.items())})" if arguments else "")


def folder_name(values: Mapping[str, str], seed: int) -> str:
    """``aggregator=FedAvg,data.partition.alpha=0.1,seed=0``.

    Characters that a file system may refuse are replaced; a digest then keeps names apart.
    """
    whole = ",".join([*(f"{key}={value}" for key, value in values.items()), f"seed={seed}"])
    safe = re.sub(r"[^\w.=,+-]+", "_", re.sub(r"\((.*?)\)", r"-\1", whole))
    if safe == whole and len(safe) <= LONGEST:
        return safe
    digest = hashlib.sha256(whole.encode()).hexdigest()[:8]
    return f"{safe.removesuffix(f',seed={seed}')[:LONGEST].rstrip('_')},seed={seed},{digest}"


def _load(value: str) -> Any:
    import yaml

    from fedlit import strict_yaml

    try:
        return strict_yaml.load(value)
    except yaml.YAMLError:
        return value


def plain(value: str) -> str:
    """A quoted text without its quotes; any other value unchanged."""
    loaded = _load(value)
    return loaded if isinstance(loaded, str) else value
