"""Data module of examples to classify: checks, duplicates, partition, split, windows. Readers subclass it."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import Any

from fedlit.data.base import groups as example_splits
from fedlit.data.base.batch import Batch, collate
from fedlit.data.base.duplicates import merged
from fedlit.data.base.groups import Sides
from fedlit.data.base.module import asked
from fedlit.data.base.names import few
from fedlit.data.base.partitions import statistics
from fedlit.data.base.records import SPLITS, natural
from fedlit.data.classification import examples
from fedlit.data.classification.checks import ExampleSource
from fedlit.data.classification.examples import Example, Examples
from fedlit.errors import FedlitError


class ClassificationDataModule(ExampleSource):
    """Data module of examples to classify; a reader adds ``read`` and ``write_stand_in``.

    Its arguments are those of :class:`fedlit.data.classification.checks.ExampleSource`.

    Attributes:
        classes: Names in the order of the label indices, after :meth:`setup`.
    """

    def setup(self, stage: str | None = None) -> None:
        """Read, check, partition, split, cut. A second call does nothing."""
        if self._ready:
            return
        self.seed = self.seed or 0
        used = self._load(self._drawn(self._labelled(self.read())))
        groups = [example.id if self.parity else example.subject for example in used]
        units = groups if self.split in ("subject", "fold") else [example.id for example in used]
        if self.merge_duplicates and not self.parity:
            keys = [self._keys[example.id] for example in used]
            groups, units = merged(groups, keys), merged(units, keys)
        by_fold = self.split == "fold" and not self.parity
        served, away = example_splits.held_by_server(used, groups, self.server_examples, by_fold, self.seed)
        self._server = [used[i] for i in served]
        self._left_out |= {used[i].id: "is of a group that the server holds" for i in away.difference(served)}
        kept = [i for i in range(len(used)) if i not in away]
        self.examples = [used[i] for i in kept]
        self.assignment = dict(sorted(self._assigned().items()))
        held = {i for indices in self.assignment.values() for i in indices}
        self._left_out |= {e.id: "left out by the partition" for i, e in enumerate(self.examples) if i not in held}
        self._sides = self._split([units[i] for i in kept])
        self._parts = {
            c: {s: self._windows([self.examples[i] for i in sides[s]]) for s in SPLITS}
            for c, sides in self._sides.items()
        }
        self._look_over()
        self.clients = list(self.assignment)
        self._ready = True

    def dataset(self, clients: str | Sequence[str], split: str) -> Examples:
        """Examples of one client, or of several together."""
        self.setup()
        names = asked(clients, split, self._parts)
        key = (tuple(names), split)
        if key not in self._made:
            held = [(example, name) for name in names for example in self._parts[name][split]]
            self._made[key] = self._dataset([example for example, _ in held], [name for _, name in held])
        return self._made[key]

    def server_dataset(self) -> Examples | None:
        """What the server holds, or None."""
        self.setup()
        if not self._server:
            return None
        held = self._windows(self._server)
        return self._dataset(held, ["server"] * len(held))

    def collate(self, items: Any) -> Batch:
        """A batch as it is, or single examples put together."""
        return collate(items)

    def describe(self) -> dict[str, Any]:
        """Contents of ``partition.json``: who holds which examples, what was left out and why."""
        self.setup()
        shares = {"val_fraction": self.val_fraction, "test_fraction": self.test_fraction}
        if self.parity:
            shares = {f"{split}_fraction": example_splits.PARITY[split] for split in ("val", "test")}
        return {
            "data": type(self).__name__,
            "root": None if self.root is None else str(self.root),
            "simulated": self.simulated,
            "stand_in": self.stand_in,
            "seed": self.seed,
            "partition": (self.partition or self.usual_partition()).config(),
            "parity": self.parity,
            "split": {"rule": "parity" if self.parity else self.split} | shares,
            "fraction": self.fraction,
            "classes": self.classes,
            "multi_label": self.multi_label,
            "clients": {client: self._describe_client(client) for client in self.clients},
            "server": [example.id for example in self._server],
            "statistics": statistics(self.examples, self.assignment),
            "duplicates": self._duplicates | {"merged": self._merges},
            "leaks": self._leaks,
            "absent_classes": self._absent,
            "excluded": [{"record": record, "reason": reason} for record, reason in sorted(self._left_out.items())],
            "warnings": list(self._warnings),
        }

    def _describe_client(self, client: str) -> dict[str, Any]:
        sides = {split: [self.examples[i] for i in self._sides[client][split]] for split in SPLITS}
        held = [example for own in sides.values() for example in own]
        return {
            "records": {split: [example.id for example in own] for split, own in sides.items()},
            "examples": {split: len(self._parts[client][split]) for split in SPLITS},
            "class_counts": {s: examples.class_counts(self._parts[client][s], self.classes) for s in SPLITS},
            "subjects": len({example.subject for example in held}),
            "sites": sorted({example.site for example in held}, key=natural),
            "kinds": sorted({example.kind for example in held}),
        }

    def _windows(self, records: Sequence[Example]) -> list[Example]:
        """What the records are cut to; with ``parity`` they already are."""
        return list(records) if self.parity else self._pieces(records)

    def _split(self, units: Sequence[str]) -> dict[str, Sides]:
        seed = self.seed or 0
        strata = example_splits.strata(self.examples)
        if self.parity:
            return example_splits.split_parity(self.assignment, strata, seed)
        shares = (self.val_fraction, self.test_fraction)
        if self.split == "fold":
            return example_splits.split_folds(self.examples, self.assignment, units, strata, *shares, seed)
        even = strata if self.split != "record" else [""] * len(strata)
        return example_splits.split_groups(self.assignment, units, even, *shares, seed)

    def _assigned(self) -> dict[str, list[int]]:
        """Who holds which examples; a fault of the usual partition tells a user who gave none."""
        partition = self.partition or self.usual_partition()
        try:
            return partition.assign(self.examples, self.seed or 0)
        except FedlitError as error:
            if self.partition is not None:
                raise
            raise FedlitError(f"{error}; data.partition is not given, and is {partition}: give one") from error

    def _dataset(self, held: Sequence[Example], clients: Sequence[str]) -> Examples:
        return Examples(held, clients, self.classes, self.multi_label)

    def _look_over(self) -> None:
        """Warn of what is odd, but not wrong in itself."""
        for client, parts in self._parts.items():
            if not parts["train"]:
                raise FedlitError(f"client {client!r} has no window to train on: use a partition with larger clients")
            lacking = sorted(
                {n for e in parts["test"] for n in e.labels} - {n for e in parts["train"] for n in e.labels}
            )
            if lacking:
                self._absent[client] = lacking
        if self._absent:
            named = [f"{client} ({few(lacking, 3)})" for client, lacking in self._absent.items()]
            self.say(f"{len(named)} client(s) test classes that they have no training example of: {few(named)}")
        tested = {name for parts in self._parts.values() for example in parts["test"] for name in example.labels}
        if len(tested) == 1 and not self.multi_label:
            self.say(f"all test examples are of one class ({tested.pop()}): scores tell nothing of the others")
        if self.class_names is None and not self.parity:
            count = Counter(name for example in self.examples for name in example.labels)
            rare = [f"{name} ({count[name]})" for name in self.classes if count[name] < len(SPLITS)]
            if rare:
                self.say(
                    f"{len(rare)} class(es) of fewer than {len(SPLITS)} records, too few to train, validate and test "
                    f"on: {few(rare)}; mend labels that are misspelt"
                )
        if self._skipped:
            names = few(self._skipped)
            self.say(
                f"{len(self._skipped)} bad record(s) skipped, {len(self.examples)} kept: {names}; see partition.json"
            )
        self.look_for_idle_patterns()
        if self._duplicates["repeats"]:
            done = "kept on one side of the split" if self._merges else "not kept on one side of the split"
            self.say(
                f"{self._duplicates['values']} value(s) occur more than once ({self._duplicates['repeats']} repeats), "
                f"{self._duplicates['with_different_labels']} of them under different labels: {done}"
            )
        self._leaks = self._count_leaks()
        if self._leaks["subjects"] or self._leaks["duplicates"]:
            self.say(
                f"{'parity: ' if self.parity else ''}{self._leaks['subjects']} subject(s) and "
                f"{self._leaks['duplicates']} duplicated value(s) are in more than one of train, val and test: figures "
                f"on unseen subjects will be lower; data.split subject with merge_duplicates keeps them apart"
            )

    def _count_leaks(self) -> dict[str, int]:
        """How many subjects, and how many values, are in more than one split."""
        sides: dict[str, dict[Any, set[str]]] = {"subjects": defaultdict(set), "duplicates": defaultdict(set)}
        for parts in self._sides.values():
            for split, indices in parts.items():
                for i in indices:
                    sides["subjects"][self.examples[i].subject].add(split)
                    sides["duplicates"][self._keys[self.examples[i].id]].add(split)
        return {name: sum(len(splits) > 1 for splits in found.values()) for name, found in sides.items()}
