"""Sounds: wav2vec2 on the waveform, AST on its mel spectrogram.

Zeros at the end of a waveform are padding to wav2vec2, which leaves them out; to AST they are silence like any other.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

from fedlit.backbones.chronos import unwrap
from fedlit.backbones.encoders.family import TINY, EncoderFamily, Extent, floating
from fedlit.backbones.folders import read_json, read_network
from fedlit.errors import FedlitError

WINDOW, HOP, BINS = 400, 160, 257  # samples at 16 kHz: 25 ms every 10 ms; frequencies of a transform of 512
FLOOR = 1.1920928955078125e-07


@dataclass(frozen=True)
class Wav2Vec2(EncoderFamily):
    """Baevski et al. 2020 (arXiv 2006.11477), such as facebook/wav2vec2-base-960h.

    The features are the mean of the last states over the frames that are not padding. Masking of frames and dropping
    of layers while training are off: they draw from generators that a run does not seed.

    Args:
        rate: Hz that the waveforms have.
        normalise: Each waveform to mean 0 and variance 1, its padding apart, which stays 0.
        attends: Tell the network which samples are padding; those trained with group normalisation do not want it.
    """

    rate: int = 16000
    normalise: bool = True
    attends: bool = False

    modality: ClassVar[str] = "audio"
    pretrained_targets: ClassVar[tuple[str, ...]] = ("q_proj", "v_proj")
    all_targets: ClassVar[tuple[str, ...]] = (
        "q_proj", "k_proj", "v_proj", "out_proj", "intermediate_dense", "output_dense",
    )  # fmt: skip
    steady: ClassVar[dict[str, Any]] = {"mask_time_prob": 0.0, "mask_feature_prob": 0.0, "layerdrop": 0.0}

    @classmethod
    def of(cls, config: Any, folder: Path | None = None) -> Self:
        settings = read_json(folder / "preprocessor_config.json") if folder else {}
        attends = settings.get("return_attention_mask", config.feat_extract_norm == "layer")
        return cls(int(settings.get("sampling_rate", 16000)), bool(settings.get("do_normalize", True)), bool(attends))

    @classmethod
    def read(cls, name: str, folder: Path) -> nn.Module:
        from transformers import Wav2Vec2Model

        return read_network(name, folder, Wav2Vec2Model, **cls.steady)

    @classmethod
    def build(cls, **settings: Any) -> nn.Module:
        from transformers import Wav2Vec2Config, Wav2Vec2Model

        network: nn.Module = Wav2Vec2Model(Wav2Vec2Config(**cls.steady | settings))
        return network

    @classmethod
    def stand_in(cls) -> tuple[nn.Module, Self]:
        network = cls.build(
            **TINY, conv_dim=(16, 16, 16), conv_kernel=(10, 8, 4), conv_stride=(5, 8, 8), num_feat_extract_layers=3,
            num_conv_pos_embeddings=16, num_conv_pos_embedding_groups=2, activation_dropout=0.0, feat_proj_dropout=0.0,
            final_dropout=0.0,
        )  # fmt: skip
        return network, cls()

    def inputs(self, network: nn.Module, x: Any) -> dict[str, Tensor]:
        waveform = _waveform(network, x)
        if int(_frames(network, torch.tensor(waveform.shape[-1]))) < 1:
            raise FedlitError(f"waveforms of {waveform.shape[-1]} samples are too short for this backbone: pad them")
        real = _real(waveform)
        if self.normalise:
            count = real.sum(dim=-1, keepdim=True)
            mean = (waveform * real).sum(dim=-1, keepdim=True) / count
            variance = ((waveform - mean).square() * real).sum(dim=-1, keepdim=True) / count
            waveform = (waveform - mean) / (variance + 1e-7).sqrt() * real
        return {"input_values": floating(network, waveform), "attention_mask": real.long()}

    def pooled(self, network: nn.Module, inputs: dict[str, Tensor]) -> Tensor:
        real = inputs["attention_mask"]
        states: Tensor = unwrap(network)(inputs["input_values"], attention_mask=real if self.attends else None)[0]
        frames = _frames(network, real.sum(dim=-1)).clamp(min=1)
        mask = torch.arange(states.shape[1], device=states.device) < frames[:, None]
        return (states * mask[..., None]).sum(dim=1) / mask.sum(dim=1, keepdim=True)

    def example(self, batch_size: int, length: int | None = None) -> dict[str, Tensor]:
        values = torch.ones(batch_size, length or 8 * self.rate)
        return {"input_values": values, "attention_mask": values.long()}

    def save(self, folder: Path | str) -> None:
        settings = {
            "feature_extractor_type": "Wav2Vec2FeatureExtractor", "sampling_rate": self.rate, "feature_size": 1,
            "do_normalize": self.normalise, "return_attention_mask": self.attends, "padding_value": 0.0,
        }  # fmt: skip
        (Path(folder) / "preprocessor_config.json").write_text(json.dumps(settings, indent=2) + "\n")


@dataclass(frozen=True)
class AST(EncoderFamily):
    """Gong et al. 2021 (arXiv 2104.01778), such as MIT/ast-finetuned-audioset-10-10-0.4593.

    The features are the mean of the class and the distillation token after the last normalisation. What comes before
    is the log-mel spectrogram of Kaldi as ``transformers.ASTFeatureExtractor`` has it, for a whole batch at once.

    Args:
        rate: Hz that the waveforms have.
        mel_bins: Frequencies.
        frames: Of 10 ms; shorter sounds are padded, what is longer is cut off.
        mean: Subtracted from the logarithms.
        std: They are divided by twice this.
    """

    rate: int = 16000
    mel_bins: int = 128
    frames: int = 1024
    mean: float = -4.2677393
    std: float = 4.5689974

    modality: ClassVar[str] = "audio"
    pretrained_targets: ClassVar[tuple[str, ...]] = ("q_proj", "v_proj")
    all_targets: ClassVar[tuple[str, ...]] = ("q_proj", "k_proj", "v_proj", "o_proj", "fc1", "fc2")

    @classmethod
    def of(cls, config: Any, folder: Path | None = None) -> Self:
        settings = read_json(folder / "preprocessor_config.json") if folder else {}
        if not settings.get("do_normalize", True):
            settings.update(mean=0.0, std=0.5)
        chosen = {name: settings[name] for name in ("mean", "std") if name in settings}
        rate = int(settings.get("sampling_rate", 16000))
        return cls(rate, int(config.num_mel_bins), int(config.max_length), **chosen)

    @classmethod
    def read(cls, name: str, folder: Path) -> nn.Module:
        from transformers import ASTModel

        return read_network(name, folder, ASTModel)

    @classmethod
    def build(cls, **settings: Any) -> nn.Module:
        from transformers import ASTConfig, ASTModel

        network: nn.Module = ASTModel(ASTConfig(**settings))
        return network

    @classmethod
    def stand_in(cls) -> tuple[nn.Module, Self]:
        network = cls.build(
            **TINY, max_length=128, num_mel_bins=32, patch_size=8, frequency_stride=8, time_stride=8
        )  # 1.3 s
        return network, cls.of(network.config)

    def inputs(self, network: nn.Module, x: Any) -> dict[str, Tensor]:
        waveform = _waveform(network, x)
        if waveform.shape[-1] < WINDOW:
            raise FedlitError(f"waveforms of {waveform.shape[-1]} samples are too short for this backbone: pad them")
        logarithms = log_mel(waveform, self.rate, self.mel_bins)[:, : self.frames]
        logarithms = nn.functional.pad(logarithms, (0, 0, 0, self.frames - logarithms.shape[1]))
        return {"input_values": floating(network, (logarithms - self.mean) / (2 * self.std))}

    def extent(self, x: Any) -> Extent:
        samples = _real(x).sum(dim=-1)
        return Extent("frames of 10 ms", self.frames, ((samples - WINDOW) // HOP + 1).clamp(min=0).tolist())

    def pooled(self, network: nn.Module, inputs: dict[str, Tensor]) -> Tensor:
        both: Tensor = unwrap(network)(**inputs).pooler_output
        return both

    def example(self, batch_size: int, length: int | None = None) -> dict[str, Tensor]:
        return {"input_values": torch.zeros(batch_size, self.frames, self.mel_bins)}

    def save(self, folder: Path | str) -> None:
        own = asdict(self)
        settings = {
            "feature_extractor_type": "ASTFeatureExtractor", "sampling_rate": own["rate"], "do_normalize": True,
            "num_mel_bins": own["mel_bins"], "max_length": own["frames"], "mean": own["mean"], "std": own["std"],
        }  # fmt: skip
        (Path(folder) / "preprocessor_config.json").write_text(json.dumps(settings, indent=2) + "\n")


def log_mel(waveform: Tensor, rate: int, mel_bins: int) -> Tensor:
    """Kaldi's filter bank without dither: (batch, samples) to natural logarithms (batch, frames, mel_bins)."""
    frames = waveform.unfold(-1, WINDOW, HOP)
    frames = frames - frames.mean(dim=-1, keepdim=True)
    before = torch.cat([frames[..., :1], frames[..., :-1]], dim=-1)
    window = torch.hann_window(WINDOW, periodic=False, device=waveform.device)
    power = torch.fft.rfft((frames - 0.97 * before) * window, n=2 * (BINS - 1)).abs().square()
    logarithms: Tensor = (power @ _mel_filters(rate, mel_bins).to(power)).clamp(min=FLOOR).log()
    return logarithms


@lru_cache(maxsize=4)
def _mel_filters(rate: int, mel_bins: int) -> Tensor:
    from transformers.audio_utils import mel_filter_bank

    options: dict[str, Any] = {"norm": None, "mel_scale": "kaldi", "triangularize_in_mel_space": True}
    return torch.from_numpy(mel_filter_bank(BINS, mel_bins, 20, rate // 2, rate, **options)).float()


def _waveform(network: nn.Module, x: Any) -> Tensor:
    if not isinstance(x, Tensor) or not x.is_floating_point() or x.ndim != 2:
        found = f"{x.dtype} {tuple(x.shape)}" if isinstance(x, Tensor) else type(x).__name__
        raise FedlitError(f"waveforms are float32 (batch, samples) for this backbone; the batch has {found}")
    return x.to(next(network.parameters()).device, torch.float32)


def _real(waveform: Tensor) -> Tensor:
    """Up to the last sample that is not 0; a silent waveform counts whole. Boolean, (batch, samples)."""
    later = waveform.ne(0).flip(-1).cumsum(dim=-1).flip(-1) > 0
    return later | ~later.any(dim=-1, keepdim=True)


def _frames(network: nn.Module, samples: Tensor) -> Tensor:
    frames: Tensor = unwrap(network)._get_feat_extract_output_lengths(samples)
    return frames
