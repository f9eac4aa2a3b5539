"""Texts to classify from a table of one's own."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

from fedlit.data.example_table import ExampleTable
from fedlit.data.examples import Modality
from fedlit.data.stand_in_texts import stand_in_text


class TextTable(ExampleTable):
    """Texts from a csv or Parquet file with a header.

    Args:
        root: The file.
        text_column: Its column with the texts.
        label_column: Its column with the labels.
        kwargs: See :class:`fedlit.data.example_table.ExampleTable`.
    """

    modality: ClassVar[Modality] = "text"
    kind: ClassVar[str] = "text"

    def __init__(self, root: Path, text_column: str = "text", label_column: str = "label", **kwargs: Any) -> None:
        self.text_column = text_column
        super().__init__(root, label_column=label_column, **kwargs)

    @property
    def value_column(self) -> str:
        """The column with the texts."""
        return self.text_column

    def value_of(self, cell: str) -> str:
        """The text as it is."""
        return cell

    def stand_in_cell(self, folder: Path, number: int, of_class: int) -> str:
        """A text of the class."""
        return stand_in_text(number, of_class)
