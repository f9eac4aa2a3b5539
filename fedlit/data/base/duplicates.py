"""Which values of a data set are the same, so that their examples stay on one side of a split."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence

import numpy as np

from fedlit.data.base.records import Item, Value


def content_key(value: Value) -> bytes:
    """Hash under which equal values are duplicates; of texts, case and white space do not count. 16 bytes."""
    digest = hashlib.blake2b(digest_size=16)
    if isinstance(value, str):
        digest.update(" ".join(value.casefold().split()).encode())
    else:
        digest.update(f"{value.dtype} {value.shape} ".encode())
        digest.update(np.ascontiguousarray(value).data)
    return digest.digest()


def merged(units: Sequence[str], keys: Sequence[bytes]) -> list[str]:
    """Units joined where they hold duplicates, also through others: each gets the first name of those it joins.

    Args:
        units: The unit (subject, or id) of each example.
        keys: Its :func:`content_key`.
    """
    parent: dict[str, str] = {}

    def root(name: str) -> str:
        while parent.setdefault(name, name) != name:
            parent[name] = parent[parent[name]]
            name = parent[name]
        return name

    first: dict[bytes, str] = {}
    for unit, key in zip(units, keys, strict=True):
        low, high = sorted((root(unit), root(first.setdefault(key, unit))))
        parent[high] = low
    return [root(unit) for unit in units]


def duplicates(examples: Sequence[Item], keys: Sequence[bytes]) -> dict[str, int]:
    """How many values occur more than once (``values``), the examples beyond the first of each (``repeats``), and how
    many of the values have examples with different labels (``with_different_labels``)."""
    labels: Mapping[bytes, list[str | None]] = {key: [] for key in keys}
    for example, key in zip(examples, keys, strict=True):
        labels[key].append(example.label)
    repeated = [own for own in labels.values() if len(own) > 1]
    return {
        "values": len(repeated),
        "repeats": sum(len(own) - 1 for own in repeated),
        "with_different_labels": sum(len(set(own)) > 1 for own in repeated),
    }
