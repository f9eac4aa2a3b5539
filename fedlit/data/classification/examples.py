"""Examples to classify: an image, a text, a waveform or a signal with its labels, and data sets of them."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch
from torch.utils.data import Dataset

from fedlit.data.base.batch import Batch
from fedlit.data.base.records import NO_LABEL, Fold, Value
from fedlit.errors import FedlitError

Modality = Literal["image", "text", "audio", "signal"]


@dataclass(frozen=True, slots=True)
class Example:
    """One thing to classify, as a reader hands it over.

    Attributes:
        id: Unique in a data set; partitions, exclusions and ``partition.json`` name the example by it.
        subject: Whom, or what document, it was taken from. Splits by subject keep a subject's examples on one side.
        site: Where it was taken; ``"site-unknown"`` where the source does not say.
        kind: ``"image"``, ``"text"``, ``"audio"``, ``"ecg"``, ``"eeg"``, ...
        labels: Exactly one, or any number of them in multi-label data.
        values: A uint8 image (H, W, 3), a text, a float32 waveform (samples,) or signal (channels, samples); or a
            function of no arguments that reads it.
        rate: Samples per second (Hz).
        fold: Part of the split that the source itself publishes.
    """

    id: str
    subject: str
    site: str
    kind: str
    labels: tuple[str, ...]
    values: Value | Callable[[], Value] = field(repr=False)
    rate: float | None = None
    fold: Fold | None = None

    @property
    def label(self) -> str:
        """The one label, or several joined by ``+``; ``"none"`` without any."""
        return "+".join(sorted(self.labels)) or NO_LABEL

    @property
    def value(self) -> Value:
        """What ``values`` is, or reads."""
        return self.values() if callable(self.values) else self.values


class Examples(Dataset[Any]):
    """Map-style data set of examples; ``__getitems__`` makes a batch of them at once.

    A batch holds ``x`` (uint8 images (B, H, W, 3), float32 waveforms (B, samples) or signals (B, channels, samples), or
    a list of texts), ``label`` (int64 (B,), or float32 (B, classes) of 0 and 1 for multi-label data), and the lists
    ``id`` and ``client``.

    Args:
        examples: In order.
        clients: The client of each.
        classes: Names, in the order of the label indices.
        multi_label: Whether an example has any number of labels.
    """

    def __init__(
        self, examples: Sequence[Example], clients: Sequence[str], classes: Sequence[str], multi_label: bool
    ) -> None:
        self.examples = list(examples)
        self.clients = list(clients)
        self.classes = list(classes)
        self.multi_label = multi_label
        self.labels = label_tensor([example.labels for example in self.examples], self.classes, multi_label)

    def __len__(self) -> int:
        return len(self.examples)

    def __getitem__(self, index: int) -> Batch:
        return {name: value[0] for name, value in self.__getitems__([index]).items()}

    def __getitems__(self, indices: Sequence[int]) -> Batch:
        chosen = [self.examples[i] for i in indices]
        values = [example.value for example in chosen]
        texts = bool(values) and isinstance(values[0], str)
        return {
            "x": values if texts else torch.from_numpy(_stacked(chosen, [np.asarray(value) for value in values])),
            "label": self.labels[torch.as_tensor(indices)],
            "id": [example.id for example in chosen],
            "client": [self.clients[i] for i in indices],
        }


def _stacked(chosen: Sequence[Example], arrays: Sequence[np.ndarray]) -> np.ndarray:
    for example, value in zip(chosen, arrays, strict=True):
        if value.shape != arrays[0].shape:
            raise FedlitError(
                f"examples {chosen[0].id!r} of shape {arrays[0].shape} and {example.id!r} of {value.shape} do not fit "
                f"one batch: bring all to one size"
            )
    return np.stack(arrays)


def label_tensor(labels: Sequence[tuple[str, ...]], classes: Sequence[str], multi_label: bool) -> torch.Tensor:
    """Labels as int64 (n,), or as float32 (n, classes) of 0 and 1 where ``multi_label``."""
    index = {name: i for i, name in enumerate(classes)}
    if not multi_label:
        return torch.tensor([index[own[0]] for own in labels], dtype=torch.int64)
    out = torch.zeros(len(labels), len(index))
    for row, own in enumerate(labels):
        out[row, [index[name] for name in own]] = 1
    return out


def class_counts(examples: Sequence[Example], classes: Sequence[str]) -> dict[str, int]:
    """Examples of each class that there is, in the order of ``classes``."""
    found = dict.fromkeys(classes, 0)
    for example in examples:
        for name in example.labels:
            found[name] += 1
    return {name: count for name, count in found.items() if count}


LONGEST_LABEL = 40
"""Characters of a label that errors quote."""


def label_fault(example: Example, class_names: Sequence[str] | None, multi_label: bool) -> str | None:
    """Why an example's labels cannot be used, or None."""
    if not multi_label and len(example.labels) != 1:
        return f"has {len(example.labels) or 'no'} labels, one is needed: mend its label"
    if len(set(example.labels)) < len(example.labels):
        return f"has a label twice ({', '.join(example.labels)}): keep one"
    odd = [name for name in example.labels if not name or (class_names is not None and name not in class_names)]
    if odd:
        known = f": there are {', '.join(class_names)}" if class_names is not None else ""
        long = f"a label of {len(odd[0])} characters"  # evidently a text in the place of a label
        shown = f"the label {odd[0]!r}" if len(odd[0]) <= LONGEST_LABEL else long
        return f"has {shown}, which is no class{known}: mend the label"
    return None


def is_empty(text: str) -> bool:
    """Whether a text shows nothing: it has only white space, marks of control and format (zero-width blanks)."""
    return all(unicodedata.category(character)[0] in "ZC" for character in text)


def value_fault(value: object, modality: Modality, gaps: bool = False) -> str | None:
    """Why a value cannot be used, or None; with ``gaps``, missing samples (NaN) are no fault."""
    if modality == "text":
        if not isinstance(value, str):
            return f"is {type(value).__name__}, not text: mend the cell"
        return "has an empty text: fill it in" if is_empty(value) else None
    if not isinstance(value, np.ndarray):
        return f"is {type(value).__name__}, not an array: mend the reader"
    if modality == "image":
        if value.ndim != 3 or value.shape[2] != 3 or value.dtype != np.uint8:
            return f"is {value.dtype} {value.shape}, not uint8 (height, width, 3): convert it to RGB of 8 bits"
        return None if value.size else "is an empty image: leave it out"
    axes = {"audio": ("samples",), "signal": ("channels", "samples")}[modality]
    if value.ndim != len(axes) or value.dtype != np.float32:
        return f"is {value.dtype} {value.shape}, not float32 ({', '.join(axes)}): mend the reader"
    if not value.size:
        return "holds no samples: leave it out"
    bad = int((np.isinf(value) if gaps else ~np.isfinite(value)).sum())
    return f"holds {bad} {'' if gaps else 'missing or '}infinite sample(s): mend them" if bad else None


def blank(value: object, modality: Modality) -> str | None:
    """What a value of a kind that can be used says where it holds nothing: it does not vary. None where it does.

    A silent stretch of a sound, a margin of an image, or one constant channel among others is no fault.
    """
    if not isinstance(value, np.ndarray):
        return None
    if modality == "image":
        first = value[0, 0]
        one = bool((value[-1, -1] == first).all() and (value == first).all())
        return f"is of one colour, {tuple(int(part) for part in first)}: leave it out" if one else None
    flat = (value == value[..., :1]).all()
    if not flat:
        return None
    if modality == "audio":
        return f"is silent, every sample is {value[0]:g}: leave it out"
    return "is flat, every channel is constant: leave it out"
