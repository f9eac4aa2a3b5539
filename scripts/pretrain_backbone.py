"""Pretrain the built-in backbone: a small Chronos-Bolt, on synthetic series only.

The series are drawn as in KernelSynth (Ansari et al. 2024, Chronos, arXiv 2403.07815, Algorithm 2): Gaussian processes
whose kernel is a random sum and product of simpler ones. Added here: trends, periodic windows (a product kernel that
makes quasi-periodic waves sharp), a smooth warp of time, and pointwise warps. No recorded series and no simulator of
a physiological signal is used.

    python scripts/pretrain_backbone.py --steps 12000 --seed 0 --out fedlit/backbones/builtin

A run that was stopped goes on from its last snapshot in ``--work``; every batch is keyed by (seed, step), so it ends
with the weights of a run that was not.
"""

from __future__ import annotations

import argparse
import json
import math
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from chronos.chronos_bolt import ChronosBoltModelForForecasting
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from transformers import T5Config

from fedlit.seeds import numpy_generator

LENGTH = 704  # samples of a series kept in the cache
DRAWN = 896  # samples drawn before the warp of time
CONTEXT, HORIZON, PATCH = 512, 64, 16
QUANTILES = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9]
Array = np.ndarray
Module = torch.nn.Module


def architecture() -> T5Config:
    """Chronos-Bolt's configuration, small enough to train on two CPU cores."""
    config = T5Config(
        d_model=128,
        d_ff=384,
        d_kv=32,
        num_heads=4,
        num_layers=3,
        num_decoder_layers=2,
        dropout_rate=0.0,
        feed_forward_proj="relu",
        initializer_factor=0.5,
        is_encoder_decoder=True,
        pad_token_id=0,
        eos_token_id=1,
        decoder_start_token_id=0,
    )
    config.reg_token_id = 1
    config.architectures = ["ChronosBoltModelForForecasting"]
    config.chronos_pipeline_class = "ChronosBoltPipeline"
    config.chronos_config = {
        "context_length": CONTEXT,
        "prediction_length": HORIZON,
        "input_patch_size": PATCH,
        "input_patch_stride": PATCH,
        "quantiles": QUANTILES,
        "use_reg_token": True,
    }
    return config


@torch.no_grad()
def initialise(model: ChronosBoltModelForForecasting) -> None:
    """Start with attention that looks somewhere, in place.

    From T5's own initial values every token sees the mean of all, the decoder forecasts a constant, and training
    stays there for thousands of steps. Here head h of the encoder starts out looking h + 1 patches back, and the
    decoder at the REG token, which stands last.
    """
    attention = model.encoder.block[0].layer[0].SelfAttention
    heads, width = attention.n_heads, attention.key_value_proj_dim
    bias = attention.relative_attention_bias.weight
    bias.mul_(0.1)
    for head in range(heads):
        bucket = attention._relative_position_bucket(
            torch.tensor([-(head + 1)]),
            num_buckets=attention.relative_attention_num_buckets,
            max_distance=attention.relative_attention_max_distance,
        )
        bias[bucket, head] += 5.0
    start, reg = torch.nn.functional.normalize(model.shared.weight, dim=-1)
    for block in model.decoder.block:
        for head in range(heads):
            block.layer[1].EncDecAttention.q.weight[head * width] = 0.5 * start
            block.layer[1].EncDecAttention.k.weight[head * width] = 0.5 * reg
    for parameter in model.output_patch_embedding.parameters():
        parameter.mul_(0.1)


# ----------------------------------------------------------------------------------------------------------- series


def log_uniform(rng: np.random.Generator, low: float, high: float) -> float:
    return float(np.exp(rng.uniform(np.log(low), np.log(high))))


BANK = {
    "rbf": 0.14,
    "periodic": 0.32,
    "locally periodic": 0.32,
    "rational quadratic": 0.1,
    "noise": 0.06,
    "constant": 0.06,
}


def kernel(rng: np.random.Generator, lag: Array) -> Array:
    """One stationary kernel of the bank as a function of the lag (samples)."""
    kind = rng.choice(list(BANK), p=list(BANK.values()))
    if kind == "constant":
        return np.ones_like(lag)
    if kind == "noise":
        return (lag == 0) * log_uniform(rng, 1e-3, 0.2)
    if kind == "rbf":
        return np.exp(-0.5 * (lag / log_uniform(rng, 3, 400)) ** 2)
    if kind == "rational quadratic":
        alpha = log_uniform(rng, 0.1, 10)
        return (1 + lag**2 / (2 * alpha * log_uniform(rng, 3, 200) ** 2)) ** -alpha
    wave = np.exp(-2 * np.sin(np.pi * lag / log_uniform(rng, 6, 300)) ** 2 / log_uniform(rng, 0.1, 2.0) ** 2)
    if kind == "periodic":
        return wave
    return wave * np.exp(-0.5 * (lag / log_uniform(rng, 150, 3000)) ** 2)


def draw(rng: np.random.Generator, covariance: Array, count: int) -> Array:
    """``count`` draws (count, samples) of the process with this covariance by lag, by Cholesky."""
    samples = len(covariance)
    index = np.abs(np.arange(samples)[:, None] - np.arange(samples)[None])
    matrix = covariance[index]
    matrix[np.diag_indices(samples)] += 1e-6 * covariance[0] + 1e-9
    return (np.linalg.cholesky(matrix) @ rng.standard_normal((samples, count))).T


def mixture(rng: np.random.Generator, count: int, samples: int = DRAWN) -> Array:
    """KernelSynth: up to five kernels joined by + or x."""
    lag = np.arange(samples, dtype=np.float64)
    total = kernel(rng, lag)
    for _ in range(rng.integers(0, 5)):
        other = kernel(rng, lag)
        # a product with noise would leave nothing but noise
        add = rng.random() < 0.6 or not other[1:].any() or not total[1:].any()
        total = total + log_uniform(rng, 0.1, 1.0) * other if add else total * other
    return draw(rng, total, count)


def waves(rng: np.random.Generator, count: int) -> Array:
    """Sharp quasi-periodic waves: draws of a locally periodic kernel times a periodic window, summed over some widths.

    A window times a process is again a Gaussian process, with the kernel w(t) w(t') k(t - t').
    """
    lag = np.arange(DRAWN, dtype=np.float64)
    period = log_uniform(rng, 12, 320)
    total = np.zeros((count, DRAWN))
    for _ in range(rng.integers(1, 5)):
        scale = log_uniform(rng, 0.05, 1.5)
        memory = log_uniform(rng, 4, 200) * period
        covariance = np.exp(-2 * np.sin(np.pi * lag / period) ** 2 / scale**2 - 0.5 * (lag / memory) ** 2)
        phase = 2 * np.pi * (lag / period - rng.random((count, 1)))
        sharpness = np.exp(rng.uniform(np.log(0.3), np.log(400), (count, 1)))
        total += log_uniform(rng, 0.1, 1.0) * np.exp(sharpness * (np.cos(phase) - 1)) * draw(rng, covariance, count)
    if rng.random() < 0.5:
        total += log_uniform(rng, 0.01, 0.4) * total.std() * standard(mixture(rng, count))
    return total


def standard(series: Array) -> Array:
    return (series - series.mean(-1, keepdims=True)) / (series.std(-1, keepdims=True) + 1e-9)


def warp_time(rng: np.random.Generator, series: Array) -> Array:
    """Read the series at instants that run fast and slow by up to some tens of percent."""
    samples = series.shape[-1]
    speed = draw(rng, np.exp(-0.5 * (np.arange(samples) / log_uniform(rng, 20, 300)) ** 2), len(series))
    instants = np.cumsum(np.exp(log_uniform(rng, 0.01, 0.15) * speed), -1)
    instants *= (samples - 1) / np.maximum(instants[:, -1:], samples - 1)
    return np.stack([np.interp(at, np.arange(samples), one) for at, one in zip(instants, series, strict=True)])


def family(rng: np.random.Generator, count: int) -> Array:
    """Series (count, LENGTH) that share a kernel and differ in the draw."""
    series = standard(waves(rng, count) if rng.random() < 0.5 else mixture(rng, count))
    if rng.random() < 0.5:
        series = warp_time(rng, series)
    shape = rng.random()
    if shape < 0.06:
        series = np.exp(np.clip(series * rng.uniform(0.3, 1.5), -6, 6))
    elif shape < 0.12:
        series = np.maximum(series - rng.uniform(-1, 1.5), 0)
    elif shape < 0.18:
        series = np.sign(series) * np.abs(series) ** rng.uniform(0.5, 3)
    series = standard(series[:, -LENGTH:])
    time_ = np.linspace(-1, 1, LENGTH)
    if rng.random() < 0.25:
        series = series + rng.normal(0, 1.5, (count, 1)) * time_ + rng.normal(0, 0.7, (count, 1)) * time_**2
    if rng.random() < 0.5:
        series = series + log_uniform(rng, 0.005, 0.2) * rng.standard_normal(series.shape)
    return standard(series).astype(np.float32)


def periodic(rng: np.random.Generator, count: int) -> Array:
    """Draws of periodic kernels by their Fourier series, from round waves to sharp pulses, with a little noise."""
    time_ = np.arange(LENGTH)
    period = np.exp(rng.uniform(np.log(10), np.log(220), (count, 1)))
    decay = np.exp(rng.uniform(np.log(0.7), np.log(12), (count, 1)))
    spread, start = rng.random((count, 1)), rng.random((count, 1))
    series = np.zeros((count, LENGTH))
    for harmonic in range(1, 25):
        phase = 2 * np.pi * (harmonic * (time_ / period + start) + spread * rng.random((count, 1)))
        audible = harmonic < period / 2
        series += audible * np.exp(-harmonic / decay) * rng.standard_normal((count, 1)) ** 2 * np.cos(phase)
    noise = np.exp(rng.uniform(np.log(0.01), np.log(0.3), (count, 1)))
    return standard(standard(series) + noise * rng.standard_normal(series.shape)).astype(np.float32)


def make_series(count: int, seed: int, name: str, each: int = 6) -> Array:
    """Two thirds of families of ``each`` per kernel, one third purely periodic.

    Shape (count, LENGTH), zero mean and unit variance.
    """
    mixed = count * 2 // 3
    groups = [family(numpy_generator(seed, name, group), each) for group in range(math.ceil(mixed / each))]
    series = np.concatenate(groups)[:mixed]
    rest = periodic(numpy_generator(seed, name, "periodic"), count - mixed)
    return np.concatenate([series[np.isfinite(series).all(-1)], rest])


# --------------------------------------------------------------------------------------------------------- batches


def batch(series: Array, seed: int, step: int, size: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Contexts (size, length) and targets (size, HORIZON) of one step; the length is drawn from 64 to 512."""
    rng = numpy_generator(seed, "pretraining batch", step)
    length = int(rng.choice([64, 128, 192, 256, 256, 256, 320, 512]) - rng.integers(0, PATCH) * (rng.random() < 0.3))
    need = length + HORIZON
    out = np.empty((size, need), np.float32)
    for row in range(size):
        one = series[rng.integers(len(series))]
        if rng.random() < 0.1:
            one = one + rng.uniform(0.1, 1) * series[rng.integers(len(series))]
        stride = int(rng.integers(1, 1 + max(1, min(3, LENGTH // need))))
        one = one[::stride]
        start = rng.integers(0, len(one) - need + 1)
        one = one[start : start + need]
        out[row] = one[::-1] if rng.random() < 0.25 else one
    out *= rng.choice([-1.0, 1.0], (size, 1))
    context, target = torch.from_numpy(out[:, :length]), torch.from_numpy(out[:, length:])
    if rng.random() < 0.1:
        context = context.masked_fill(torch.from_numpy(rng.random(context.shape) < rng.uniform(0, 0.2)), torch.nan)
    return context, target


def usable(context: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Rows whose target stays within 6 deviations of the context: the rest would rule the loss."""
    mean, deviation = context.nanmean(-1, keepdim=True), context.nan_to_num().std(-1, keepdim=True)
    return ((target - mean).abs() < 6 * deviation).all(-1)


@torch.no_grad()
def validate(model: ChronosBoltModelForForecasting, batches: list[tuple[torch.Tensor, torch.Tensor]]) -> dict:
    """Loss, and RMSE of the median over RMSE of the context's mean, both in deviations of each context."""
    losses, errors, means = [], [], []
    for context, target in batches:
        keep = usable(context, target)
        context, target = context[keep], target[keep]
        out = model(context=context, target=target.clone())
        mean, deviation = context.nanmean(-1, keepdim=True), context.nan_to_num().std(-1, keepdim=True)
        losses.append(float(out.loss))
        errors.append(((out.quantile_preds[:, QUANTILES.index(0.5)] - target) / deviation).square().mean())
        means.append(((mean - target) / deviation).square().mean())
    ratio = (torch.stack(errors).mean() / torch.stack(means).mean()).sqrt()
    return {"loss": float(np.mean(losses)), "rmse_over_context_mean": float(ratio)}


# ---------------------------------------------------------------------------------------------------------- running


def rate(step: int, steps: int, peak: float, warmup: int = 500) -> float:
    """Linear warm-up, then constant, then cosine to 0 over the last 40 percent."""
    decay = int(0.6 * steps)
    if step < warmup:
        return peak * (step + 1) / warmup
    return peak if step < decay else peak * 0.5 * (1 + math.cos(math.pi * (step - decay) / (steps - decay)))


def moments(model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> Iterator[tuple[str, torch.Tensor]]:
    for name, parameter in model.named_parameters():
        for kind in ("exp_avg", "exp_avg_sq"):
            yield f"{kind}/{name}", optimizer.state[parameter][kind]


def save_snapshot(path: Path, step: int, model: Module, average: Module, optimizer: torch.optim.Optimizer) -> None:
    tensors = {f"model/{name}": value.clone() for name, value in model.named_parameters()}
    tensors |= {f"average/{name}": value.clone() for name, value in average.named_parameters()}
    tensors |= {name: value.clone() for name, value in moments(model, optimizer)}
    save_file({name: value.detach() for name, value in tensors.items()}, path.with_suffix(".part"), {"step": str(step)})
    path.with_suffix(".part").replace(path)


def load_snapshot(path: Path, model: Module, average: Module, optimizer: torch.optim.Optimizer) -> int:
    tensors = load_file(path)
    with safe_open(path, "pt") as file:
        step = int(file.metadata()["step"])
    with torch.no_grad():
        for kind, network in (("model", model), ("average", average)):
            for name, parameter in network.named_parameters():
                parameter.copy_(tensors[f"{kind}/{name}"])
    for name, parameter in model.named_parameters():
        optimizer.state[parameter] = {
            "step": torch.tensor(float(step)),
            "exp_avg": tensors[f"exp_avg/{name}"],
            "exp_avg_sq": tensors[f"exp_avg_sq/{name}"],
        }
    return step


CARD = """---
license: apache-2.0
library_name: chronos-forecasting
tags: [time-series, forecasting, synthetic]
---
# The built-in backbone of fedlit

A Chronos-Bolt of {parameters:,} parameters, trained from random initial values by `scripts/pretrain_backbone.py`
on **synthetic series only**. It is a stand-in that makes zero-shot forecasts mean something without a network; it is
not one of Amazon's Chronos-Bolt models and does not reach them. Reports name it "built-in stand-in".

| | |
|---|---|
| architecture | d_model 128, d_ff 384, 4 heads of 32, 3 encoder and 2 decoder layers, patches of 16, no dropout |
| context, horizon | at most 512, 64 samples |
| quantiles | 0.1 to 0.9 |
| data | {series:,} series of {length} samples drawn from Gaussian processes with random kernels (sums and products of RBF, periodic, locally periodic, rational quadratic, noise, constant), a third of them quasi-periodic waves sharpened by periodic windows; a third purely periodic (random Fourier series, from round to sharp); trends, smooth warps of time, pointwise warps; crops, mixes, flips. No recorded series, no simulator of a physiological signal |
| initial values | T5's with a factor of 0.5, except that the encoder's heads start out looking 1 to 4 patches back and the decoder at the REG token (`initialise` in the script says why) |
| optimisation | {steps:,} steps of {batch} windows, AdamW, peak rate {peak}, constant then cosine; weights are an exponential average (0.999); bfloat16 autocast |
| seed | {seed} |
| loss (training, mean of 500 steps) | {first:.3f} at the start, {last:.3f} at the end |
| held-out synthetic windows | loss {loss:.3f}; RMSE {ratio:.3f} of the context mean's |
| time | {minutes:.0f} minutes, {threads} thread(s) of a CPU |
| licence | Apache-2.0 |

Rebuild: `{command}`
(the same bytes on the same processor type and library versions; elsewhere equal up to rounding).
{note}"""  # noqa: E501


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=12_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("fedlit/backbones/builtin"))
    parser.add_argument("--series", type=int, default=36_000)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--rate", type=float, default=1e-3, help="peak learning rate")
    parser.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()) / "fedlit-pretraining")
    parser.add_argument("--stop-at", type=int, default=None, help="write --out at this step of the schedule and end")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    args.work.mkdir(parents=True, exist_ok=True)

    cache = args.work / f"series-{args.seed}-{args.series}.npy"
    if not cache.exists():
        began = time.time()
        np.save(cache, make_series(args.series, args.seed, "pretraining series"))
        print(f"drew {args.series} series in {time.time() - began:.0f} s", flush=True)
    series = np.load(cache)
    held_out = make_series(min(1152, args.series), args.seed, "held-out series")
    checks = [batch(held_out, args.seed, -1 - number, 64) for number in range(12)]

    with torch.random.fork_rng():
        torch.manual_seed(args.seed)
        model, average = (ChronosBoltModelForForecasting(architecture()) for _ in range(2))
    initialise(model)
    average.load_state_dict(model.state_dict())
    optimizer = torch.optim.AdamW(model.parameters(), args.rate, betas=(0.9, 0.98), weight_decay=0.01)
    snapshot, curve = args.work / f"snapshot-{args.seed}.safetensors", args.work / f"curve-{args.seed}.jsonl"
    first_step = load_snapshot(snapshot, model, average, optimizer) if snapshot.exists() else 0

    began, recent = time.time(), []
    last_step = max(first_step, min(args.steps, args.stop_at or args.steps))
    for step in range(first_step, last_step):
        optimizer.param_groups[0]["lr"] = rate(step, args.steps, args.rate)
        context, target = batch(series, args.seed, step, args.batch)
        keep = usable(context, target)
        with torch.autocast("cpu", torch.bfloat16):
            loss = model(context=context[keep], target=target[keep]).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        with torch.no_grad():
            decay = min(0.999, (1 + step) / (10 + step))
            torch._foreach_lerp_(list(average.parameters()), list(model.parameters()), 1 - decay)
        recent.append(loss.item())
        if (step + 1) % 500 == 0 or step + 1 == last_step:
            save_snapshot(snapshot, step + 1, model, average, optimizer)
            row = {"step": step + 1, "train": float(np.mean(recent)), "seconds": time.time() - began}
            row |= validate(average, checks)
            recent = []
            with curve.open("a") as file:
                file.write(json.dumps(row) + "\n")
            print(row, flush=True)

    rows = [json.loads(line) for line in curve.read_text().splitlines()]
    # seconds count from the start of a run, which ends where the next row has fewer
    following = [row["seconds"] for row in rows[1:]] + [0.0]
    seconds = sum(row["seconds"] for row, after in zip(rows, following, strict=True) if after < row["seconds"])
    average.eval().save_pretrained(args.out)
    (args.out / "model.safetensors").chmod(0o644)
    stopped = "" if last_step == args.steps else f"\nStopped at step {last_step:,} of a schedule of {args.steps:,}.\n"
    command = f"OMP_NUM_THREADS=1 python scripts/pretrain_backbone.py --steps {args.steps} --seed {args.seed}"
    (args.out / "README.md").write_text(
        CARD.format(
            parameters=sum(parameter.numel() for parameter in average.parameters()), series=args.series, length=LENGTH,
            steps=last_step, batch=args.batch, peak=args.rate, seed=args.seed, first=rows[0]["train"],
            last=rows[-1]["train"], loss=rows[-1]["loss"], ratio=rows[-1]["rmse_over_context_mean"],
            minutes=seconds / 60, threads=args.threads, command=command, note=stopped,
        )
    )  # fmt: skip


if __name__ == "__main__":
    main()
