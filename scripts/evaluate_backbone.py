"""Zero-shot error of a backbone on real ECG against three naive forecasts.

    python scripts/evaluate_backbone.py --data ../shared/data --out docs/results/builtin_backbone.md

Reads ``ecg_ptbxl_mini`` (PTB-XL's layout) and ``ecg_cinc_multisite`` (WFDB records of six hospital systems), lead II at
100 Hz. Windows of 256 + 64 samples every 64 samples; every window is scaled by the extremes of its context, so errors
are fractions of the context's range. No figure here has served to choose anything in the pretraining.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from fedlit.backbones import load_backbone
from fedlit.data import PTBXL, WFDBFolder
from fedlit.data.signals.resampling import resample

CONTEXT, HORIZON, RATE = 256, 64, 100.0
Forecast = Callable[[torch.Tensor], torch.Tensor]


def windows(folder: Path) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """Scaled contexts and targets by hospital system; flat contexts and gaps are left out."""
    found: dict[str, list[np.ndarray]] = {}
    ptbxl = PTBXL(folder / "ecg_ptbxl_mini", lead="II", rate=None, on_bad_record="skip")
    sites = WFDBFolder(folder / "ecg_cinc_multisite" / "records", on_bad_record="skip")
    records = [("PTB-XL mini", record) for record in ptbxl.read()]
    records += [(f"Challenge {record.site}", record) for record in sites.read()]
    for system, record in records:
        values = resample(record.values, record.rate, RATE)
        if len(values) >= CONTEXT + HORIZON:
            cuts = np.lib.stride_tricks.sliding_window_view(values, CONTEXT + HORIZON)[::HORIZON]
            found.setdefault(system, []).append(cuts)
    out = {}
    for system, cuts in found.items():
        both = torch.from_numpy(np.concatenate(cuts).astype(np.float32))
        low, high = both[:, :CONTEXT].amin(1, keepdim=True), both[:, :CONTEXT].amax(1, keepdim=True)
        keep = (high > low)[:, 0] & torch.isfinite(both).all(1)
        both = ((both - low) / (high - low))[keep]
        out[system] = both[:, :CONTEXT], both[:, CONTEXT:]
    return dict(sorted(out.items()))


def last_value(context: torch.Tensor) -> torch.Tensor:
    return context[:, -1:].expand(-1, HORIZON)


def context_mean(context: torch.Tensor) -> torch.Tensor:
    return context.mean(1, keepdim=True).expand(-1, HORIZON)


def seasonal_naive(context: torch.Tensor, shortest: int = 25, longest: int = 150) -> torch.Tensor:
    """Repeat the last period; the period maximises the context's autocorrelation (24 to 240 beats a minute)."""
    centred = context - context.mean(1, keepdim=True)
    spectrum = torch.fft.rfft(centred, n=2 * CONTEXT)
    correlation = torch.fft.irfft(spectrum.abs() ** 2)[:, : longest + 1]
    correlation = correlation / (CONTEXT - torch.arange(longest + 1))
    period = shortest + correlation[:, shortest:].argmax(1)
    steps = torch.arange(HORIZON)[None] % period[:, None]
    return context.gather(1, CONTEXT - period[:, None] + steps)


def rmse(error: torch.Tensor) -> float:
    return float(error.double().square().mean().sqrt())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--backbone", default="builtin")
    parser.add_argument("--out", type=Path, default=None, help="also write the table to this Markdown file")
    args = parser.parse_args()
    backbone = load_backbone(args.backbone)

    @torch.no_grad()
    def median(context: torch.Tensor) -> torch.Tensor:
        parts = [backbone.family.forecast(backbone.network, part, HORIZON, [0.5])[:, 0] for part in context.split(256)]
        return torch.cat(parts)

    forecasts: dict[str, Forecast] = {
        "backbone, zero-shot": median,
        "last value": last_value,
        "context mean": context_mean,
        "seasonal naive": seasonal_naive,
    }
    data = windows(args.data)
    data["all"] = tuple(torch.cat(parts) for parts in zip(*data.values(), strict=True))  # type: ignore[assignment]
    lines = [f"| hospital system | windows | {' | '.join(forecasts)} |", "|---|---|" + "---|" * len(forecasts)]
    for system, (context, target) in data.items():
        scores = [rmse(forecast(context) - target) for forecast in forecasts.values()]
        cells = [f"**{score:.4f}**" if score == min(scores) else f"{score:.4f}" for score in scores]
        lines.append(f"| {system} | {len(context)} | {' | '.join(cells)} |")
    text = f"""# Zero-shot error of the backbone `{args.backbone}` on real ECG

Root mean squared error of the point forecast (median), in fractions of the context's range; lower is better, the best
of a row in bold. Data: **real** ECG, lead II at {RATE:.0f} Hz, context {CONTEXT}, horizon {HORIZON} samples, one window
every {HORIZON}. Backbone: {backbone.source}. Model served: global, not fine-tuned.
One evaluation, no seeds: the forecast is deterministic. "all" pools windows.

{chr(10).join(lines)}

Made by `python scripts/evaluate_backbone.py --out docs/results/builtin_backbone.md`.
"""
    print(text)
    if args.out is not None:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text(text)


if __name__ == "__main__":
    main()
