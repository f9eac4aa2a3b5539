"""Images to classify, out of files: photographs and DICOM, brought to one size."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from fedlit.data.base.names import few
from fedlit.data.classification.examples import Modality
from fedlit.data.classification.module import ClassificationDataModule
from fedlit.data.classification.reach import Reach
from fedlit.data.files.dicom import DicomWindow, is_dicom, read_dicom
from fedlit.data.files.images import Pixels, Resize, read_image, resized


class ImageReader(ClassificationDataModule):
    """Images to classify, uint8 RGB of one size. What ``crop`` cuts off is counted in ``partition.json``."""

    modality: ClassVar[Modality] = "image"
    unit: ClassVar[str] = "pixels"
    dicom_window: DicomWindow = "file"
    size: int
    resize: Resize
    _without_window: list[str]
    _dicoms: int

    def picture(self, path: Path) -> Pixels:
        """A file, shape (size, size, 3). DICOM is known by its first bytes, or by its ending.

        Raises:
            BadRecord: It cannot be used; the message names it and the mend.
        """
        if path.suffix.lower() in (".dcm", ".dicom") or is_dicom(path):
            pixels, without = read_dicom(path, self.dicom_window)
            self._dicoms += 1
            if without:
                self._without_window.append(path.name)
        else:
            pixels = read_image(path)
        height, width = pixels.shape[:2]
        edge = min(height, width)
        self._reach = Reach(height * width, edge * edge if self.resize == "crop" else height * width)
        return resized(path, pixels, self.size, self.resize)

    def mend_of_cuts(self) -> str:
        """Images lose what is outside of their middle square."""
        return "data.resize squash keeps whole images"

    def _look_over(self) -> None:
        super()._look_over()
        if self._without_window:
            self.say(
                f"{len(self._without_window)} DICOM file(s) have no window, and the range of their own values is used, "
                f"in which equal tissue may look different: set data.dicom_window: {few(self._without_window)}"
            )
        if self.dicom_window != "file" and not self._dicoms and not self.stand_in:
            self.say("data.dicom_window has no effect: no file is DICOM")

    def _forget(self) -> None:
        super()._forget()
        self._without_window = []
        self._dicoms = 0
