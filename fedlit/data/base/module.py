"""What the trainer asks of data: clients, a data set per client and split, a description of who holds what."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lightning import LightningDataModule
from torch.utils.data import DataLoader, Dataset

from fedlit import seeds
from fedlit.data.base.names import few
from fedlit.data.base.records import SPLITS
from fedlit.errors import FedlitError


class FederatedDataModule(LightningDataModule):
    """Data held by several clients.

    A plain ``lightning.Trainer`` sees the clients pooled.

    Attributes:
        batch_size: Examples in a batch.
        eval_batch_size: Examples in a batch that is scored and not trained on; None: ``batch_size``.
        seed: Of partition, split and shuffling; None: the run's seed, or 0 outside of a federated run.
        clients: Sorted names, after :meth:`setup`.
        simulated: Whether the data are simulated or a stand-in; reports say so.
    """

    batch_size: int = 32
    eval_batch_size: int | None = None
    seed: int | None = None
    simulated: bool = False

    def __init__(self) -> None:
        super().__init__()
        self.clients: list[str] = []

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

    def collate(self, items: Any) -> Any:
        """A batch out of what the data set gives."""
        from torch.utils.data import default_collate

        return default_collate(items)

    def describe(self) -> dict[str, Any]:
        """Contents of ``partition.json``."""
        return {"simulated": self.simulated, "clients": {client: {} for client in self.clients}}

    def config(self) -> dict[str, Any]:
        """Constructor arguments as JSON can hold them; part of a run's fingerprint."""
        return {"class": type(self).__name__}

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


def asked(clients: str | Sequence[str], split: str, held: Mapping[str, object]) -> list[str]:
    """The names of the clients whose data are asked for, of those that hold some.

    Raises:
        FedlitError: There is no such client, or no such split, or none is asked for.
    """
    names = [clients] if isinstance(clients, str) else list(clients)
    if not names:
        raise FedlitError("no client is asked for: `clients` of a data module is empty before its setup()")
    for name in names:
        if name not in held:  # what is held without a name is the server's
            raise FedlitError(f"no client {name!r}: there are {few([known for known in held if known])}")
    if split not in SPLITS:
        raise FedlitError(f"no split {split!r}: there are {', '.join(SPLITS)}")
    return names
