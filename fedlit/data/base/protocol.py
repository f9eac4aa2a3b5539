"""How records are split and prepared: as the arguments say, or, with ``parity``, as a paper's code did."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, TypedDict


class SplitFacts(TypedDict):
    """The split in ``partition.json``."""

    rule: str
    val_fraction: float
    test_fraction: float


@dataclass(frozen=True)
class SplitProtocol:
    """A split by the arguments of a data module.

    Args:
        rule: Its ``split``.
        val_fraction: Share for validation.
        test_fraction: Share for test.
    """

    by_subject: ClassVar[bool] = True
    """Whether a split by subject keeps the records of a subject on one side."""
    means: ClassVar[str] = ""
    """What a reader of figures must know of the split."""
    rule: str
    val_fraction: float
    test_fraction: float

    def describe(self) -> SplitFacts:
        """The split in ``partition.json``."""
        return {"rule": self.rule, "val_fraction": self.val_fraction, "test_fraction": self.test_fraction}


class PublishedProtocol(SplitProtocol):
    """The split and preparation of a paper's code, for figures that can be compared with the paper's.

    Attributes:
        published: Shares for validation and test, in the place of the arguments'.
    """

    by_subject: ClassVar[bool] = False
    published: ClassVar[tuple[float, float]]

    def describe(self) -> SplitFacts:
        """The split in ``partition.json``."""
        val, test = self.published
        return {"rule": "parity", "val_fraction": val, "test_fraction": test}
