"""Data module of annotated documents: partition, split, what each client looked for. Readers subclass it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch
from torch.utils.data import Dataset

from fedlit.data.base import groups as example_splits
from fedlit.data.base.duplicates import content_key, duplicates, merged
from fedlit.data.base.groups import Sides
from fedlit.data.base.module import asked
from fedlit.data.base.names import few
from fedlit.data.base.partitions import Assignment, statistics
from fedlit.data.base.records import SPLITS, natural
from fedlit.data.documents.documents import BOTH, Document
from fedlit.data.documents.schema_and_masks import annotation_counts, held_by_server, mask_of, masked, type_counts
from fedlit.data.documents.source import DocumentSource
from fedlit.errors import FedlitError

Batch = dict[str, Any]
_MEND = "use a partition with fewer, larger clients, or set data.val_fraction or data.test_fraction to 0"


class Documents(Dataset[Any]):
    """Map-style data set of documents.

    A batch is ``{"document": [Document, ...], "client": [str, ...], "index": int64 (batch,)}``, the last of positions
    in this data set.

    Args:
        documents: In order.
        clients: The client of each.
    """

    def __init__(self, documents: Sequence[Document], clients: Sequence[str]) -> None:
        self.documents = list(documents)
        self.clients = list(clients)

    def __len__(self) -> int:
        return len(self.documents)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {"document": self.documents[index], "client": self.clients[index], "index": index}

    def __getitems__(self, indices: Sequence[int]) -> Batch:
        names = {"document": [self.documents[i] for i in indices], "client": [self.clients[i] for i in indices]}
        return {**names, "index": torch.tensor(list(indices), dtype=torch.int64)}


class DocumentDataModule(DocumentSource):
    """Data module of annotated documents; a reader adds ``read`` and ``write_stand_in``.

    Its arguments are those of :class:`fedlit.data.documents.source.DocumentSource`.

    Attributes:
        schema: Types in the documents, after :meth:`setup`, in the form of the argument.
        documents: All that clients hold, with everything that their annotators found.
    """

    def setup(self, stage: str | None = None) -> None:
        """Read, check, partition, split, mask. A second call does nothing."""
        if self._ready:
            return
        self.seed = self.seed or 0
        used = self._usable(self.read())
        groups = [own.subject for own in used]
        units = groups if self.split != "record" else [own.id for own in used]
        keys = [content_key(own.text) for own in used]
        self._duplicates = duplicates(used, keys)
        if self.merge_duplicates:
            groups, units = merged(groups, keys), merged(units, keys)
        served, away = held_by_server(used, groups, self.server_examples, self.split == "fold", self.seed)
        self._server = [used[i] for i in served]
        self._left_out |= {used[i].id: "is of a group that the server holds" for i in away.difference(served)}
        kept = [i for i in range(len(used)) if i not in away]
        self.documents = [used[i] for i in kept]
        self._keys = [keys[i] for i in kept]
        partition = self.partition or self.default_partition
        self.assignment = self._masked(dict(sorted(partition.assign(self.documents, self.seed).items())))
        self._sides = self._split([units[i] for i in kept])
        self._parts = {
            client: {split: [self._seen(client, split, i) for i in sides[split]] for split in SPLITS}
            for client, sides in self._sides.items()
        }
        self._look_over()
        self.clients = list(self.assignment)
        self._ready = True

    def dataset(self, clients: str | Sequence[str], split: str) -> Documents:
        """Documents of one client, or of several together, with what their clients looked for."""
        self.setup()
        names = asked(clients, split, self._parts)
        held = [(own, name) for name in names for own in self._parts[name][split]]
        return Documents([own for own, _ in held], [name for _, name in held])

    def server_dataset(self) -> Documents | None:
        """What the server holds, or None."""
        self.setup()
        return Documents(self._server, ["server"] * len(self._server)) if self._server else None

    def collate(self, items: Any) -> Batch:
        """A batch as it is, or single documents put together."""
        if isinstance(items, dict):
            return items
        together = {name: [item[name] for item in items] for name in ("document", "client")}
        return {**together, "index": torch.tensor([item["index"] for item in items], dtype=torch.int64)}

    def describe(self) -> dict[str, Any]:
        """Contents of ``partition.json``: who holds which documents, counts by type, what was left out and why."""
        self.setup()
        return {
            "data": type(self).__name__,
            "root": None if self.root is None else str(self.root),
            "simulated": self.simulated,
            "stand_in": self.stand_in,
            "seed": self.seed,
            "partition": (self.partition or self.default_partition).config(),
            "split": {"rule": self.split, "val_fraction": self.val_fraction, "test_fraction": self.test_fraction},
            "schema": self.schema,
            "clients": {client: self._describe_client(client) for client in self.clients},
            "server": [own.id for own in self._server],
            "statistics": statistics(self.documents, self.assignment),
            "duplicates": self._duplicates | {"merged": self._merges},
            "leaks": self._leaks,
            "not_kept": dict(self.ignored),
            "excluded": [{"record": record, "reason": reason} for record, reason in sorted(self._left_out.items())],
            "warnings": list(self._warnings),
        }

    @property
    def _merges(self) -> bool:
        return self.merge_duplicates and self.split != "fold"

    def _describe_client(self, client: str) -> dict[str, Any]:
        parts = self._parts[client]
        held = [own for side in parts.values() for own in side]
        return {
            "looked_for": sorted(self._masks[client]),
            "documents": {split: [own.id for own in parts[split]] for split in SPLITS},
            "annotated": {split: annotation_counts(parts[split]) for split in SPLITS},
            "type_counts": {split: type_counts(parts[split]) for split in SPLITS},
            "subjects": len({own.subject for own in held}),
            "sites": sorted({own.site for own in held}, key=natural),
        }

    def _split(self, units: Sequence[str]) -> dict[str, Sides]:
        shares = (self.val_fraction, self.test_fraction)
        even = [""] * len(units)
        if self.split == "fold":
            documents = cast(Any, self.documents)
            return example_splits.split_folds(documents, self.assignment, units, even, *shares, self.seed or 0)
        return example_splits.split_groups(self.assignment, units, even, *shares, self.seed or 0, _MEND)

    def _seen(self, client: str, split: str, index: int) -> Document:
        """A document with what its client looked for."""
        own = self.documents[index]
        if split == "test" and not self.mask_test:
            return own
        return masked(own, self._masks[client]) or own

    def _masked(self, assignment: Assignment) -> Assignment:
        """The documents of each client in which something that it looks for was looked for."""
        held = {i for indices in assignment.values() for i in indices}
        self._left_out |= {d.id: "left out by the partition" for i, d in enumerate(self.documents) if i not in held}
        found = {client: mask_of(client, self.annotated) for client in assignment}
        self._masks = {client: BOTH if mask is None else mask[1] for client, mask in found.items()}
        idle = [p for p in self.annotated if p not in {mask[0] for mask in found.values() if mask is not None}]
        if idle and self.stand_in:
            self.say(f"stand-in: data.annotated names none of its clients by {few(idle)}")
        elif idle:
            raise FedlitError(f"data.annotated: no client is named like {idle[0]!r}; there are {', '.join(assignment)}")
        out: Assignment = {}
        for client, indices in assignment.items():
            out[client] = [i for i in indices if masked(self.documents[i], self._masks[client]) is not None]
            for i in set(indices).difference(out[client]):
                self._left_out[self.documents[i].id] = f"nothing that client {client!r} looks for was looked for in it"
            if not out[client]:
                what = ", ".join(sorted(self._masks[client]))
                raise FedlitError(f"client {client!r} has no document annotated with {what}: mend data.annotated")
        return out

    def _look_over(self) -> None:
        """Warn of what is odd, but not wrong in itself."""
        for client, parts in self._parts.items():
            if not parts["train"]:
                raise FedlitError(f"client {client!r} has no document to train on: {_MEND}")
        for what in sorted(BOTH):
            with_none = [c for c, parts in self._parts.items() if not annotation_counts(parts["train"])[what]]
            without = [client for client in with_none if what in self._masks[client]]
            if without and any(what in own.annotated for own in self.documents):
                self.say(f"{len(without)} client(s) have no training document annotated with {what}: {few(without)}")
        if len(self._parts) == 1:
            self.say("there is one client: name sites, or set data.partition (RareTagBalanced, IID) to make several")
        if self._skipped:
            names = few(self._skipped)
            self.say(
                f"{len(self._skipped)} bad record(s) skipped, {len(self.documents)} kept: {names}; see partition.json"
            )
        self.look_for_idle_patterns()
        if self._duplicates["repeats"] and not self._merges:
            self.say(
                f"{self._duplicates['values']} text(s) occur more than once ({self._duplicates['repeats']} repeats): "
                f"not kept on one side of the split"
            )
        self._leaks = self._count_leaks()
        if self._leaks["subjects"] or self._leaks["duplicates"]:
            self.say(
                f"{self._leaks['subjects']} subject(s) and {self._leaks['duplicates']} duplicated text(s) are in more "
                f"than one of train, val and test: data.split subject with merge_duplicates keeps them apart"
            )

    def _count_leaks(self) -> dict[str, int]:
        """How many subjects, and how many texts, are in more than one split."""
        found: dict[tuple[str, Any], set[str]] = {}
        for parts in self._sides.values():
            for split, indices in parts.items():
                for i in indices:
                    own = self.documents[i]
                    for key in (("subjects", own.subject), ("duplicates", self._keys[i])):
                        found.setdefault(key, set()).add(split)
        return {
            name: sum(len(splits) > 1 for (kind, _), splits in found.items() if kind == name)
            for name in ("subjects", "duplicates")
        }
