"""Images to classify from a table of one's own."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar, get_args

from fedlit.data.example_table import FileTable
from fedlit.data.examples import Modality
from fedlit.data.image_files import Resize, read_image
from fedlit.data.stand_in_images import stand_in_image
from fedlit.errors import FedlitError


class ImageTable(FileTable):
    """Images in files, which a csv or Parquet file with a header lists.

    Any format that Pillow reads, of 8 bits a channel. Grey images and palettes become RGB, transparency is dropped, and
    images are turned upright as their EXIF data say. Other modes (16 bits, floats, CMYK) are refused.

    Args:
        root: The table.
        path_column: Its column with the files' paths, which are also their ids unless ``id_column`` is given.
        folder: Where relative paths start; None: the table's own folder.
        size: Height and width (pixels) of all images.
        resize: Of an image of another size: ``error`` refuses it; ``crop`` cuts out the middle square and scales that;
            ``squash`` scales it whole, whatever its aspect.
        kwargs: See :class:`fedlit.data.example_table.ExampleTable`.
    """

    modality: ClassVar[Modality] = "image"
    kind: ClassVar[str] = "image"

    def __init__(
        self,
        root: Path,
        path_column: str = "path",
        folder: Path | None = None,
        size: int = 224,
        resize: Resize = "error",
        **kwargs: Any,
    ) -> None:
        if not size >= 1:
            raise FedlitError(f"data.size is {size}: give a number of pixels")
        if resize not in get_args(Resize):
            raise FedlitError(f"data.resize is {resize!r}: give one of {', '.join(get_args(Resize))}")
        super().__init__(root, path_column=path_column, folder=folder, **kwargs)
        self.size = size
        self.resize: Resize = resize

    def read_file(self, path: Path) -> Any:
        """uint8, shape (size, size, 3)."""
        return read_image(path, self.size, self.resize)

    def stand_in_cell(self, folder: Path, number: int, of_class: int) -> str:
        """``images/image-1.png``, ..."""
        from PIL import Image

        name = f"images/image-{number + 1}.png"
        (folder / "images").mkdir(exist_ok=True)
        image = Image.fromarray(stand_in_image(number, of_class, self.size, self.size))
        image.save(folder / name, compress_level=1)
        return name
