"""What a client sends and receives in a round, beside what the full model would take: a computed line with its base."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from torch import nn

from fedlit.runs.folder import RunFolder
from fedlit.transports.admission import DTYPES

DIRECTIONS = ("up", "down")
ADDED = re.compile(r"\.lora_|\.modules_to_save\.")
"""Matches names of parameters that PEFT adds: they are not of the full model."""
NAMES = {dtype: name for name, dtype in DTYPES.items()}


def communication(rows: Iterable[Mapping[str, str]], network: nn.Module) -> dict[str, Any]:
    """What crossed on average, the full model in the dtype it is held in, and how much less the first is.

    Args:
        rows: Of ``ledger.csv``. Its parameters are the numbers sent; scales and places of a compression count too.
        network: Whose parameters, adapters left out, are the base.

    Returns:
        ``per_client_and_round`` by direction, its figures means over the payloads that crossed; ``reference``;
        ``less_than_reference`` by direction, 0.99 for a hundredth of the reference's bytes. Empty where nothing
        crossed.
    """
    base = reference(network)
    sent: dict[str, dict[str, Any]] = {}
    less: dict[str, float] = {}
    listed = list(rows)
    for direction in DIRECTIONS:
        here = [row for row in listed if row["direction"] == direction]
        if here:
            parameters, bytes_ = (
                sum(int(row[column]) for row in here) / len(here) for column in ("parameters", "bytes")
            )
            dtypes = {d for row in here for d in row["dtype"].split("+")} - {"none"}
            sent[direction] = {"parameters": parameters, "bytes": bytes_, "dtype": "+".join(sorted(dtypes)) or "none"}
            less[direction] = 1 - bytes_ / base["bytes"]
    return {"per_client_and_round": sent, "reference": base, "less_than_reference": less}


def reference(network: nn.Module) -> dict[str, Any]:
    """Parameters and bytes of the full model as it is held; of weights packed into fewer bits, the packed bytes."""
    held = {name: p for name, p in network.named_parameters() if not ADDED.search(name)}
    states: dict[str, Any] = {name: getattr(p, "quant_state", None) for name, p in held.items()}  # of bitsandbytes
    packed = {name: state for name, state in states.items() if state is not None}
    kinds = {"4 bit" if name in packed else NAMES.get(p.dtype, str(p.dtype)) for name, p in held.items()}
    return {
        "what": "the full model in the dtype it is held in",
        "parameters": sum(math.prod(packed[n].shape) if n in packed else p.numel() for n, p in held.items()),
        "bytes": sum(p.numel() * p.element_size() for p in held.values()),
        "dtype": "+".join(sorted(kinds)),
    }


def line(about: Mapping[str, Any]) -> str:
    """What :func:`communication` found, as a sentence."""
    sent, base, less = about["per_client_and_round"], about["reference"], about["less_than_reference"]
    if not sent:
        return "nothing was sent"
    parts = [f"{way} {s['parameters']:,.0f} parameters, {size(s['bytes'])} ({s['dtype']})" for way, s in sent.items()]
    full = f"{base['what']} ({base['dtype']}) has {base['parameters']:,} parameters, {size(base['bytes'])}"
    shares = ", ".join(f"{way} {_difference(share)}" for way, share in less.items())
    return f"sent per client and round: {'; '.join(parts)}; {full}: {shares}"


def lines(folder: RunFolder, names: Sequence[str]) -> list[str]:
    """The line of each rule of a run.

    Args:
        folder: The run's.
        names: Rules, the run's own last.
    """
    places = [folder.path / "baselines" / name for name in names[:-1]] + [folder.path]
    out = []
    for name, place in zip(names, places, strict=True):
        path = place / "summary.json"
        about = json.loads(path.read_text()).get("communication") if path.exists() else None
        if about is not None:  # else of a run that was summarised before there was this entry
            out.append(f"{name}: {line(about)}")
    return out


def size(count: float) -> str:
    """Bytes with a decimal unit."""
    for unit, factor in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= factor:
            return f"{count / factor:.1f} {unit}"
    return f"{count:.0f} bytes"


def _difference(less: float) -> str:
    """Rounded towards no difference, so that little is never said to be nothing."""
    return f"{math.floor(less * 10000) / 100:.2f} % less" if less >= 0 else f"{-less * 100:.2f} % more"
