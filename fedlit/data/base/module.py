"""What the trainer asks of data: clients, a data set per client and split, a description of who holds what."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence, Sized
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar, cast

from lightning import LightningDataModule
from torch.utils.data import DataLoader, Dataset

from fedlit import seeds
from fedlit.data.base.overview import Overview, Shown, Table, overview_of
from fedlit.data.base.records import SPLITS


class FederatedDataModule(LightningDataModule):
    """Data held by several clients.

    A plain ``lightning.Trainer`` sees the clients pooled.

    Attributes:
        batch_size: Examples in a batch.
        eval_batch_size: Examples in a batch that is scored and not trained on; None: ``batch_size``.
        seed: Seed of partition, split and shuffling; None: the run's seed, or 0 outside of a federated run.
        clients: Sorted names, after :meth:`setup`.
        external: Sites that take no part, after :meth:`setup`: they have test data alone, on which the global model is
            scored at the end.
        simulated: Whether the data are simulated or a stand-in; reports say so.
    """

    added_arguments: ClassVar[Mapping[str, object]] = {}
    """Constructor arguments of this class that came later than some runs, with the values under which nothing changed:
    a run's fingerprint leaves those out."""
    added_facts: ClassVar[Mapping[str, str | None]] = {}
    """Facts of a client in :meth:`describe` that came later than some runs, with the name that such runs have them
    under, or None: a run's fingerprint takes them as those runs did."""
    batch_size: int = 32
    eval_batch_size: int | None = None
    seed: int | None = None
    simulated: bool = False

    def __init__(self) -> None:
        super().__init__()
        self.clients: list[str] = []
        self.external: list[str] = []

    @abstractmethod
    def setup(self, stage: str | None = None) -> None:
        """Read, partition and split. A second call does nothing."""

    @abstractmethod
    def dataset(self, clients: str | Sequence[str], split: str) -> Dataset[Any]:
        """Map-style data set of one client, or of several together.

        Args:
            clients: Name or names.
            split: ``"train"``, ``"val"`` or ``"test"``. Empty where the split was not asked for.
        """

    def as_trained_on(self, dataset: Dataset[Any], seed: int) -> Dataset[Any]:
        """A training data set as one client's local steps in one round see it: as it is, or altered at random.

        Args:
            dataset: What :meth:`dataset` gave.
            seed: Of the client and the round. All that is random depends on it, and on the number of the batch, see
                :class:`fedlit.data.base.batch.AlteredExamples`.
        """
        return dataset

    def collate(self, items: Any) -> Any:
        """A batch out of what the data set gives."""
        from torch.utils.data import default_collate

        return default_collate(items)

    def describe(self) -> dict[str, Any]:
        """Contents of ``partition.json``."""
        return {"simulated": self.simulated, "clients": {client: {} for client in self.clients}}

    def overview(self, samples: int = 0) -> Overview:
        """What would be read, for ``fedlit data``: counts, channels, classes, what was left out, warnings.

        Args:
            samples: So many samples of each client's training data, of images twice as many; 0: none.
        """
        self.setup()
        return overview_of(type(self).__name__, self.describe(), self.shown(samples))

    def shown(self, samples: int) -> Shown:
        """What this kind of data shows of itself; arguments are those of :meth:`overview`."""
        counts = {client: self.example_counts(client) for client in self.clients}
        rows = tuple((client, split, counts[client][split]) for client in self.clients for split in SPLITS)
        total = sum(sum(own.values()) for own in counts.values())
        held = Table("Who holds what", ("client", "split", "examples"), rows)
        return Shown({"clients": len(counts), "examples": total}, [held])

    def config(self) -> dict[str, object]:
        """Constructor arguments as JSON can hold them; part of a run's fingerprint."""
        return {"class": type(self).__name__}

    def facts(self) -> dict[str, Any]:
        """What a task takes from the data besides examples, as JSON can hold it.

        A server that holds no data makes the same task from this, see :class:`Facts`.
        """
        return {}

    def example_counts(self, client: str) -> dict[str, int]:
        """Number of examples in each split of a client."""
        return {split: len(cast(Sized, self.dataset((client,), split))) for split in SPLITS}

    def server_dataset(self) -> Dataset[Any] | None:
        """Examples that the server itself holds, or None."""
        return None

    def use_stand_in(self, folder: Path) -> None:
        """Put tiny generated files in the official layout, written under ``folder``, in the place of the data."""
        raise NotImplementedError(f"{type(self).__name__} has no stand-in")

    def _pooled(self, split: str) -> Dataset[Any]:
        self.setup()
        return self.dataset(self.clients, split)

    def train_dataloader(self) -> DataLoader[Any]:
        """All clients pooled, shuffled by a generator of this module's seed."""
        return DataLoader(
            self._pooled("train"),
            batch_size=self.batch_size,
            shuffle=True,
            generator=seeds.generator(self.seed or 0, "train_dataloader"),
            collate_fn=self.collate,
        )

    def val_dataloader(self) -> DataLoader[Any]:
        """All clients pooled."""
        return DataLoader(
            self._pooled("val"), batch_size=self.eval_batch_size or self.batch_size, collate_fn=self.collate
        )

    def test_dataloader(self) -> DataLoader[Any]:
        """All clients pooled."""
        return DataLoader(
            self._pooled("test"), batch_size=self.eval_batch_size or self.batch_size, collate_fn=self.collate
        )

    def predict_dataloader(self) -> DataLoader[Any]:
        """The test windows, all clients pooled."""
        return self.test_dataloader()


class Facts(SimpleNamespace):
    """What a task takes from data that lie elsewhere: the :meth:`FederatedDataModule.facts`, as attributes.

    Args:
        facts: What the data modules of all clients said.
        examples: Number of examples of each client and split.

    Attributes:
        clients: Sorted names.
        examples: Number of training examples of each client.
    """

    clients: list[str]
    examples: dict[str, int]

    def __init__(self, facts: Mapping[str, object], examples: Mapping[str, Mapping[str, int]]) -> None:
        training = {client: examples[client]["train"] for client in sorted(examples)}
        super().__init__(**facts, clients=list(training), examples=training)
