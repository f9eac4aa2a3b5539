"""Sounds to classify from a table and a folder of one's own."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

from fedlit.data.example_table import FileTable
from fedlit.data.sound_files import Padding, SoundReader, Waveform
from fedlit.data.stand_in_sounds import stand_in_sound, write_sound


class SoundTable(FileTable, SoundReader):
    """Sound files that a csv or Parquet file with a header names and labels.

    Args:
        root: The table.
        path_column: Its column with the files' paths, which are also their ids unless ``id_column`` is given.
        folder: Where relative paths start; None: the table's own folder.
        rate: Samples per second (Hz) that the backbone wants: 16000 for wav2vec2 and AST.
        seconds: Length of each example; longer sounds lose their end.
        padding: What shorter sounds get: ``circular`` repeats them, ``zeros`` adds silence, ``crop`` takes none.
        kwargs: See :class:`fedlit.data.example_table.ExampleTable`.
    """

    kind: ClassVar[str] = "audio"
    rate: float

    def __init__(
        self,
        root: Path,
        path_column: str = "file",
        folder: Path | None = None,
        rate: float = 16000.0,
        seconds: float = 8.0,
        padding: Padding = "circular",
        **kwargs: Any,
    ) -> None:
        super().__init__(
            root, path_column=path_column, folder=folder, rate=rate, seconds=seconds, padding=padding, **kwargs
        )

    def read_file(self, path: Path) -> Waveform:
        """The whole file."""
        return self.excerpt(path)

    def stand_in_cell(self, folder: Path, number: int, of_class: int) -> str:
        """A sound of the class."""
        write_sound(folder / "sounds" / f"sound-{number + 1}.wav", stand_in_sound(number, of_class))
        return f"sounds/sound-{number + 1}.wav"
