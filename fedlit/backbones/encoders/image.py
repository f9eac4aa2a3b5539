"""Images: ViT and DINOv2, without torchvision.

An image is scaled to the network's own size, whole: nothing is cropped, so one that is not square is squeezed.
"""

from __future__ import annotations

import json
from abc import abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

from fedlit.backbones.chronos import unwrap
from fedlit.backbones.encoders.family import TINY, EncoderFamily, floating
from fedlit.backbones.folders import read_json, read_network
from fedlit.errors import FedlitError

RESAMPLING = {2: "bilinear", 3: "bicubic"}  # numbers as Pillow has them
Colour = tuple[float, float, float]


@dataclass(frozen=True)
class ImageEncoder(EncoderFamily):
    """Patches of an image; the features are the class token after the last normalisation.

    Args:
        size: Height and width that the network is given (pixels).
        mean: Of red, green and blue, once pixels are in [0, 1].
        std: Likewise.
        resampling: ``"bilinear"`` or ``"bicubic"``, with antialiasing.
    """

    size: tuple[int, int]
    mean: Colour
    std: Colour
    resampling: str

    modality: ClassVar[str] = "image"
    pretrained_targets: ClassVar[tuple[str, ...]] = ("q_proj", "v_proj")
    all_targets: ClassVar[tuple[str, ...]] = ("q_proj", "k_proj", "v_proj", "o_proj", "fc1", "fc2")
    usual: ClassVar[dict[str, Any]]

    @classmethod
    @abstractmethod
    def size_of(cls, config: Any, settings: dict[str, Any]) -> tuple[int, int]:
        """Height and width, by the network's configuration and the preprocessor's settings."""

    @classmethod
    def of(cls, config: Any, folder: Path | None = None) -> Self:
        path = folder / "preprocessor_config.json" if folder else Path("preprocessor_config.json")
        settings = {**cls.usual, **(read_json(path) if folder else {})}
        resampling = RESAMPLING.get(settings["resample"])
        if resampling is None:
            raise FedlitError(f"{path}: resample {settings['resample']!r} is none of 2 (bilinear) and 3 (bicubic)")
        if not settings.get("do_normalize", True):
            settings.update(image_mean=0.0, image_std=1.0)
        mean, std = (_colour(settings[field], f"{path}: {field}") for field in ("image_mean", "image_std"))
        return cls(cls.size_of(config, settings), mean, std, resampling)

    def inputs(self, network: nn.Module, x: Any) -> dict[str, Tensor]:
        if not isinstance(x, Tensor) or x.dtype != torch.uint8 or x.ndim != 4 or x.shape[-1] != 3:
            found = f"{x.dtype} {tuple(x.shape)}" if isinstance(x, Tensor) else type(x).__name__
            raise FedlitError(f"images are uint8 (batch, height, width, 3) for this backbone; the batch has {found}")
        pixels = x.to(next(network.parameters()).device).permute(0, 3, 1, 2).float()
        if pixels.shape[-2:] != self.size:
            pixels = nn.functional.interpolate(pixels, self.size, mode=self.resampling, antialias=True)
            pixels = pixels.clamp(0, 255)  # bicubic weights overshoot at edges
        mean, std = (pixels.new_tensor(figures).view(3, 1, 1) for figures in (self.mean, self.std))
        return {"pixel_values": floating(network, (pixels / 255 - mean) / std)}

    def pooled(self, network: nn.Module, inputs: dict[str, Tensor]) -> Tensor:
        first: Tensor = unwrap(network)(**inputs).last_hidden_state[:, 0]
        return first

    def example(self, batch_size: int, length: int | None = None) -> dict[str, Tensor]:
        return {"pixel_values": torch.zeros(batch_size, 3, *self.size)}

    def save(self, folder: Path | str) -> None:
        height, width = self.size
        number = next(number for number, name in RESAMPLING.items() if name == self.resampling)
        settings = {
            "image_processor_type": "ViTImageProcessor", "size": {"height": height, "width": width},
            "resample": number, "do_resize": True, "do_rescale": True, "do_normalize": True,
            "image_mean": list(self.mean), "image_std": list(self.std),
        }  # fmt: skip
        (Path(folder) / "preprocessor_config.json").write_text(json.dumps(settings, indent=2) + "\n")


class ViT(ImageEncoder):
    """Dosovitskiy et al. 2020 (arXiv 2010.11929), such as google/vit-base-patch16-224."""

    usual: ClassVar[dict[str, Any]] = {"image_mean": 0.5, "image_std": 0.5, "resample": 2}

    @classmethod
    def size_of(cls, config: Any, settings: dict[str, Any]) -> tuple[int, int]:
        return _pair(config.image_size)  # the positions that it has learnt

    @classmethod
    def read(cls, name: str, folder: Path) -> nn.Module:
        from transformers import ViTModel

        return read_network(name, folder, ViTModel, add_pooling_layer=False)

    @classmethod
    def build(cls, **settings: Any) -> nn.Module:
        from transformers import ViTConfig, ViTModel

        network: nn.Module = ViTModel(ViTConfig(**settings), add_pooling_layer=False)
        return network

    @classmethod
    def stand_in(cls) -> tuple[nn.Module, Self]:
        network = cls.build(**TINY, image_size=32, patch_size=8)
        return network, cls.of(network.config)


class DINOv2(ImageEncoder):
    """Oquab et al. 2023 (arXiv 2304.07193), such as facebook/dinov2-base.

    Given 224 pixels unless the preprocessor says otherwise, as upstream's is, though the positions are for 518: they
    are interpolated.
    """

    usual: ClassVar[dict[str, Any]] = {
        "image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225], "resample": 3,
    }  # fmt: skip

    @classmethod
    def size_of(cls, config: Any, settings: dict[str, Any]) -> tuple[int, int]:
        size = settings.get("crop_size") if settings.get("do_center_crop", True) else None
        size = size or settings.get("size") or 224
        if isinstance(size, dict):
            size = size.get("shortest_edge") or (size["height"], size["width"])
        height, width = _pair(size)
        patch = int(config.patch_size)
        if height % patch or width % patch:
            raise FedlitError(
                f"preprocessor_config.json: {height} x {width} pixels are no multiple of {patch}, a patch"
            )
        return height, width

    @classmethod
    def read(cls, name: str, folder: Path) -> nn.Module:
        from transformers import Dinov2Model

        return read_network(name, folder, Dinov2Model)

    @classmethod
    def build(cls, **settings: Any) -> nn.Module:
        from transformers import Dinov2Config, Dinov2Model

        network: nn.Module = Dinov2Model(Dinov2Config(**settings))
        return network

    @classmethod
    def stand_in(cls) -> tuple[nn.Module, Self]:
        tiny = {k: v for k, v in TINY.items() if k != "intermediate_size"}
        network = cls.build(**tiny, mlp_ratio=2, image_size=32, patch_size=8)
        mean, std = (_colour(cls.usual[field], field) for field in ("image_mean", "image_std"))
        return network, cls((32, 32), mean, std, "bicubic")


def _pair(size: Any) -> tuple[int, int]:
    if isinstance(size, dict):
        size = size["height"], size["width"]
    height, width = (size, size) if isinstance(size, int) else size
    return int(height), int(width)


def _colour(value: Any, where: str) -> Colour:
    values = [value] * 3 if isinstance(value, int | float) else list(value)
    if len(values) != 3:
        raise FedlitError(f"{where} has {len(values)} numbers; images here have three colours")
    return float(values[0]), float(values[1]), float(values[2])
