"""Splits of examples by groups that stay on one side, even in classes where that is possible."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np

from fedlit import seeds
from fedlit.data.base.records import NO_LABEL, SPLITS, Foldable, Labelled, natural
from fedlit.data.base.skews import cut_by_shares
from fedlit.errors import FedlitError

ClassSplit = Literal["subject", "record", "fold", "stratified"]
Sides = dict[str, list[int]]
"""Split name to indices into the examples."""
PARITY = {"train": 0.4, "test": 0.3, "val": 0.3}
"""Shares of each client and class in the code of arXiv 2504.10817, in its order."""
BIG = 0.05
"""A unit with more than this share of a client's examples is placed before the others, where most is wanted."""
MEND = "use a partition with fewer, larger clients (min_records), or data.split stratified"


def strata(examples: Sequence[Labelled]) -> list[str]:
    """The class by which each example is dealt out: its label, the rarest of several."""
    count = Counter(name for example in examples for name in example.labels)
    return [min(e.labels, key=lambda name: (count[name], name), default=NO_LABEL) for e in examples]


def draw(units: Sequence[str], classes: Sequence[str], fraction: float, seed: int) -> list[int]:
    """Indices of the examples of a share of the units, the same share (at least one) in every class.

    Args:
        units: Unit of each example; drawn as a whole.
        classes: Its class; a unit counts as its commonest.
        fraction: Share of the units, above 0.
        seed: Seed of the draw.
    """
    if fraction >= 1:
        return list(range(len(units)))
    by_class: dict[str, list[str]] = defaultdict(list)
    for unit, name in _commonest(units, classes).items():
        by_class[name].append(unit)
    kept: set[str] = set()
    for name, members in sorted(by_class.items()):
        order = seeds.numpy_generator(seed, "fraction", name).permutation(len(members))
        kept |= {members[i] for i in order[: max(1, round(fraction * len(members)))]}
    return [i for i, unit in enumerate(units) if unit in kept]


def held_by_server(
    examples: Sequence[Foldable], units: Sequence[str], count: int, by_fold: bool, seed: int
) -> tuple[list[int], set[int]]:
    """Which examples the server holds, and which no client may have: all of the same units.

    Units are drawn at random; those of the source's training fold only, where the split is the source's.

    Raises:
        FedlitError: Nothing would be left for clients.
    """
    if not count:
        return [], set()
    members: dict[str, list[int]] = defaultdict(list)
    for i, unit in enumerate(units):
        members[unit].append(i)
    names = [u for u, own in members.items() if not by_fold or all(examples[i].fold == "train" for i in own)]
    chosen: list[int] = []
    for k in seeds.numpy_generator(seed, "server examples").permutation(len(names)):
        if len(chosen) >= count:
            break
        chosen += members[names[k]]
    if len(chosen) < count or len(chosen) == len(examples):
        raise FedlitError(f"data.server_examples is {count} of {len(examples)}: too many, lower it")
    return sorted(chosen[:count]), set(chosen)


def split_groups(
    assignment: Mapping[str, Sequence[int]],
    units: Sequence[str],
    classes: Sequence[str],
    val_fraction: float,
    test_fraction: float,
    seed: int,
    mend: str = MEND,
) -> dict[str, Sides]:
    """Deal out whole units, even in classes; a unit that several clients hold is on the same side everywhere.

    The first unit of a class that a client deals out goes to training while that has room, so that a client seldom
    tests what it could not learn.

    Raises:
        FedlitError: A client has too few units; it names the client and the mend.
    """
    shares = {"train": 1 - val_fraction - test_fraction, "val": val_fraction, "test": test_fraction}
    shares = {side: share for side, share in shares.items() if share > 0}
    count = {client: len({units[i] for i in indices}) for client, indices in assignment.items()}
    sides: dict[str, str] = {}
    # Small clients choose first: in a large one there is room for units that are bound already.
    for client in sorted(assignment, key=lambda c: (count[c], c)):
        indices = assignment[client]
        weight = Counter(units[i] for i in indices)
        commonest = _commonest([units[i] for i in indices], [classes[i] for i in indices])
        sides |= _deal(client, weight, commonest, sides, shares, seed, mend)
    return {c: _sides(indices, [sides[units[i]] for i in indices]) for c, indices in assignment.items()}


def split_parity(assignment: Mapping[str, Sequence[int]], classes: Sequence[str], seed: int) -> dict[str, Sides]:
    """40 % train, 30 % test, 30 % val of each client and class, whatever subject an example is from.

    As the code of arXiv 2504.10817 splits.
    """
    out = {}
    for client, indices in assignment.items():
        side: dict[int, str] = {}
        for name in sorted({classes[i] for i in indices}):
            members = [i for i in indices if classes[i] == name]
            order = seeds.numpy_generator(seed, "parity split", client, name).permutation(members)
            for split, chosen in zip(PARITY, cut_by_shares(order, np.array(list(PARITY.values()))), strict=True):
                side |= dict.fromkeys(chosen, split)
        out[client] = _sides(indices, [side[i] for i in indices])
        for split in SPLITS:
            if not out[client][split]:
                raise FedlitError(f"client {client!r} has {len(indices)} example(s), and none for {split}: {MEND}")
    return out


def split_folds(
    examples: Sequence[Foldable],
    assignment: Mapping[str, Sequence[int]],
    units: Sequence[str],
    classes: Sequence[str],
    val_fraction: float,
    test_fraction: float,
    seed: int,
) -> dict[str, Sides]:
    """The source's own split. Where it has no validation part, ``val_fraction`` of the training units are taken.

    Raises:
        FedlitError: An example has no fold, or a client has no example in one.
    """
    for example in examples:
        if example.fold is None:
            raise FedlitError(f"record {example.id!r} has no fold: set data.split to subject")
    has_val = any(example.fold == "val" for example in examples)
    # Without a validation part the source's validation fold is training data, not lost.
    fold = ["train" if e.fold == "val" and not val_fraction else str(e.fold) for e in examples]
    out = {client: _sides(indices, [fold[i] for i in indices]) for client, indices in assignment.items()}
    for client, parts in out.items():
        for split, share in (("train", 1.0), ("val", val_fraction if has_val else 0), ("test", test_fraction)):
            if share and not parts[split]:
                raise FedlitError(
                    f"client {client!r} has no example in the source's {split} fold ({len(assignment[client])} "
                    f"examples): set data.split to subject, or use a partition with fewer, larger clients"
                )
    if val_fraction and not has_val:
        trained = {client: parts["train"] for client, parts in out.items()}
        for client, parts in split_groups(trained, units, classes, val_fraction, 0.0, seed).items():
            out[client] |= {"train": parts["train"], "val": parts["val"]}
    return out


def _deal(
    client: str,
    weight: Mapping[str, int],
    commonest: Mapping[str, str],
    bound: Mapping[str, str],
    shares: Mapping[str, float],
    seed: int,
    mend: str,
) -> dict[str, str]:
    """Side of each of a client's units; those in ``bound`` keep theirs."""
    names = sorted(weight, key=natural)
    if len(names) < len(shares):
        raise FedlitError(f"client {client!r} has {len(names)} group(s), a split needs {len(shares)}: {mend}")
    total = sum(weight.values())
    sides = {name: bound[name] for name in names if name in bound}
    held = dict.fromkeys(shares, 0)
    for name, side in sides.items():
        held[side] += weight[name]
    free = [name for name in names if name not in bound]
    order = [free[i] for i in seeds.numpy_generator(seed, "split", client).permutation(len(free))]
    big = {name for name in free if weight[name] > max(1, BIG * total)}
    order.sort(key=lambda name: (-weight[name], "") if name in big else (0, commonest[name]))
    trained = {commonest[name] for name, side in sides.items() if side == "train"}
    done = total - sum(weight[name] for name in free)
    used = set(sides.values())
    for left, name in zip(range(len(order), 0, -1), order, strict=True):
        done += weight[name]
        empty = [side for side in shares if side not in used]
        room = [side for side in shares if held[side] < shares[side] * total] or list(shares)
        reach = total if name in big else done
        side = max(room, key=lambda s: shares[s] * reach - held[s])
        if "train" in room and commonest[name] not in trained:
            side = "train"
        if len(empty) >= left and side not in empty:
            side = empty[0]
        sides[name] = side
        used.add(side)
        held[side] += weight[name]
        if side == "train":
            trained.add(commonest[name])
    lacking = [side for side in shares if side not in used]
    if lacking:
        raise FedlitError(
            f"client {client!r} shares its groups with other clients so that none is left for {lacking[0]}: {mend}"
        )
    return sides


def _commonest(units: Sequence[str], classes: Sequence[str]) -> dict[str, str]:
    """Unit to its commonest class, the first by name of equals."""
    count: dict[str, Counter[str]] = defaultdict(Counter)
    for unit, name in zip(units, classes, strict=True):
        count[unit][name] += 1
    return {unit: min(own, key=lambda name: (-own[name], name)) for unit, own in count.items()}


def _sides(indices: Sequence[int], side: Sequence[str]) -> Sides:
    out: Sides = {split: [] for split in SPLITS}
    for i, split in zip(indices, side, strict=True):
        out[split].append(int(i))
    return out
