"""Images, sounds and texts that a table of one's own lists: texts in its cells, or files that it names."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from fedlit.data.base import arguments
from fedlit.data.classification.example_table import ExampleTable, FileTable
from fedlit.data.classification.examples import Modality
from fedlit.data.classification.images import ImageReader
from fedlit.data.classification.sounds import Long, Padding, SoundReader
from fedlit.data.files.dicom import DicomWindow, check_window
from fedlit.data.files.images import Resize
from fedlit.data.files.sounds import Waveform
from fedlit.data.generated.examples import stand_in_image, stand_in_sound, stand_in_text, write_sound
from fedlit.errors import FedlitError


class ImageTable(FileTable, ImageReader):
    """Images in files, which a table lists.

    Any format that Pillow reads, of 8 bits a channel. Grey images and palettes become RGB, transparency is dropped, and
    images are turned upright as their EXIF data say. Other modes (16 bits, floats, CMYK) are refused. DICOM files, of
    any ending, become what a viewer shows, see :func:`fedlit.data.files.dicom.read_dicom`.

    Args:
        root: The table.
        path_column: Its column with the files' paths, which are also their ids unless ``id_column`` is given.
        folder: Where relative paths start; None: the table's own folder.
        size: Height and width (pixels) of all images.
        resize: Treatment of an image of another size: ``error`` refuses it; ``crop`` cuts out the middle square and
            scales that; ``squash`` scales it whole, whatever its aspect.
        dicom_window: Grey values of DICOM files that become 0 to 255: ``file`` for the file's own window, and the range
            of its values where it has none, which is said; ``range``; ``percentile`` (1st to 99th); or
            ``[centre, width]``, in the units of the file (CT: Hounsfield units).
        kwargs: See :class:`fedlit.data.classification.tables.ExampleTable`.
    """

    kind: ClassVar[str] = "image"
    added_arguments: ClassVar[Mapping[str, object]] = {"dicom_window": "file"}

    def __init__(
        self,
        root: Path,
        path_column: str = "path",
        folder: Path | None = None,
        size: int = 224,
        resize: Resize = "error",
        dicom_window: DicomWindow = "file",
        **kwargs: Any,
    ) -> None:
        if not size >= 1:
            raise FedlitError(f"data.size is {size}: give a number of pixels")
        arguments.one_of("resize", resize, Resize)
        check_window(dicom_window)
        super().__init__(root, path_column=path_column, folder=folder, **kwargs)
        self.size = size
        self.resize: Resize = resize
        self.dicom_window = dicom_window

    def read_file(self, path: Path) -> Any:
        """uint8, shape (size, size, 3)."""
        return self.picture(path)

    def stand_in_cell(self, folder: Path, number: int, of_class: int) -> str:
        """``images/image-1.png``, ..."""
        from PIL import Image

        name = f"images/image-{number + 1}.png"
        (folder / "images").mkdir(exist_ok=True)
        image = Image.fromarray(stand_in_image(number, of_class, self.size, self.size))
        image.save(folder / name, compress_level=1)
        return name


class SoundTable(FileTable, SoundReader):
    """Sound files that a csv or Parquet file with a header names and labels.

    Args:
        root: The table.
        path_column: Its column with the files' paths, which are also their ids unless ``id_column`` is given.
        folder: Where relative paths start; None: the table's own folder.
        rate: Samples per second (Hz) that the backbone wants: 16000 for wav2vec2 and AST.
        seconds: Length of each example.
        padding: What shorter sounds get: ``circular`` repeats them, ``zeros`` adds silence, ``crop`` takes none.
        long: What longer sounds become: ``cut`` drops their end; ``pieces`` makes examples of all of it.
        kwargs: See :class:`fedlit.data.classification.tables.ExampleTable`.
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
        long: Long = "cut",
        **kwargs: Any,
    ) -> None:
        sound = {"rate": rate, "seconds": seconds, "padding": padding, "long": long}
        super().__init__(root, path_column=path_column, folder=folder, **sound, **kwargs)

    def read_file(self, path: Path) -> Waveform:
        """The whole file."""
        return self.excerpt(path)

    def stand_in_cell(self, folder: Path, number: int, of_class: int) -> str:
        """A sound of the class."""
        write_sound(folder / "sounds" / f"sound-{number + 1}.wav", stand_in_sound(number, of_class))
        return f"sounds/sound-{number + 1}.wav"


class TextTable(ExampleTable):
    """Texts from a csv or Parquet file with a header.

    Args:
        root: The file.
        text_column: Its column with the texts.
        label_column: Its column with the labels.
        kwargs: See :class:`fedlit.data.classification.tables.ExampleTable`.
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

    def value_of(self, name: str, cell: str) -> str:
        """The text as it is."""
        return cell

    def stand_in_cell(self, folder: Path, number: int, of_class: int) -> str:
        """A text of the class."""
        return stand_in_text(number, of_class)
