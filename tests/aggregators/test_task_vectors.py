"""Task vectors: by hand, by PEFT's own merging, and from files that PEFT loads again."""

from __future__ import annotations

import json
import warnings

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from peft.utils.merge_utils import dare_linear, ties
from safetensors.torch import load_file, save_file
from torch import nn
from toys import Regression, ToyData

from fedlit import seeds, tree
from fedlit.aggregators import FedAvg, LocalOnly, Server, Update
from fedlit.aggregators.server import Sealed
from fedlit.aggregators.task_vectors import TaskVectors, merge
from fedlit.cli import merge as merging
from fedlit.cli.merge import merge_models
from fedlit.data import SimulatedVitals
from fedlit.errors import FedlitError
from fedlit.runs.checkpoint import read
from fedlit.tasks import ForecastingTask


def vectors(count=4, seed=0):
    generator = torch.Generator().manual_seed(seed)
    shapes = {"x.lora_A.weight": (3, 5), "x.lora_B.weight": (4, 3)}
    return [
        {n: torch.randn(s, generator=generator, dtype=torch.float64) for n, s in shapes.items()} for _ in range(count)
    ]


def one_round(rule, sent, params=None, sealed=False):
    params = params or tree.zeros(sent[0])
    updates = [Update(f"client-{i}", rule.weigh(9 + i, None), lambda v=v: v, sealed=sealed) for i, v in enumerate(sent)]
    return rule.aggregate(rule.init(params), updates, Server(0, seeds.generator(0, "test")))["params"]


def single(rule, *rows):
    return one_round(rule, [{"w": torch.tensor(row, dtype=torch.float64)} for row in rows])["w"].tolist()


def test_ties_by_hand():
    """Density 0.5 of 4 keeps two each: [4, 0, -3, 0], [-1, 0, 0, -2], [2, 0, 0, 2].

    Sums 5, 0, -3, 0: elected +, none, -, none. Means of those who agree: (4 + 2) / 2, 0, -3, 0.
    """
    rows = [4.0, 1.0, -3.0, 0.5], [-1.0, 0.1, 0.2, -2.0], [2.0, 0.0, 1.0, 2.0]
    assert single(TaskVectors("ties", density=0.5), *rows) == [3.0, 0.0, -3.0, 0.0]
    assert single(TaskVectors("ties", density=0.5, coefficient=0.5), *rows) == [1.5, 0.0, -1.5, 0.0]
    # All entries: sums 5, 1.1, -1.8, 0.5; the 0 of the third agrees with nothing.
    expected = [(4 + 2) / 2, (1 + 0.1) / 2, -3.0, (0.5 + 2) / 2]
    assert single(TaskVectors("ties", density=1.0), *rows) == pytest.approx(expected)


def test_of_equal_entries_the_first_stay():
    assert single(TaskVectors("ties", density=0.5), [1.0, -1.0, 1.0, 1.0]) == [1.0, -1.0, 0.0, 0.0]
    assert single(TaskVectors("ties", density=0.01), [1.0, 3.0]) == [0.0, 3.0]  # at least one


def test_sum_and_mean_by_hand():
    rows = [1.0, 2.0], [3.0, -4.0], [5.0, 5.0]
    assert single(TaskVectors("sum"), *rows) == pytest.approx([9.0, 3.0])
    assert single(TaskVectors("sum", coefficient=0.3), *rows) == pytest.approx([2.7, 0.9])
    assert single(TaskVectors("mean"), *rows) == pytest.approx([3.0, 1.0])


def test_ties_is_what_peft_computes():
    sent = vectors()
    for density in (0.2, 0.5, 0.9):
        found = one_round(TaskVectors("ties", density=density), sent)
        for name, value in found.items():
            expected = ties([v[name] for v in sent], torch.ones(4).double(), density)
            torch.testing.assert_close(value, expected, rtol=1e-14, atol=1e-14)


def test_dare_is_what_peft_computes_with_the_same_draws():
    sent = vectors()
    with torch.random.fork_rng():
        torch.manual_seed(11)
        expected = {n: dare_linear([v[n] for v in sent], torch.ones(4).double(), 0.4) for n in sorted(sent[0])}
    found = merge(sent, "dare", 0.4, torch.Generator().manual_seed(11))
    torch.testing.assert_close(found, expected, rtol=1e-14, atol=1e-14)


def test_dare_keeps_the_sum_in_expectation():
    sent, generator = [{"w": torch.tensor([1.0, -2.0])}, {"w": torch.tensor([3.0, 5.0])}], torch.Generator()
    draws = torch.stack([merge(sent, "dare", 0.3, generator)["w"] for _ in range(4000)])
    # One entry's variance is x^2 (1 - p) / p; five standard errors of the mean.
    error = (torch.tensor([1.0 + 9, 4 + 25]) * 0.7 / 0.3 / 4000).sqrt()
    assert ((draws.mean(0) - torch.tensor([4.0, 3.0])).abs() < 5 * error).all()
    assert set(draws[:, 0].mul(0.3).round(decimals=9).tolist()) == {0.0, 1.0, 3.0, 4.0}


def test_with_everything_kept_dare_is_the_sum():
    sent = vectors()
    found = one_round(TaskVectors("dare", density=1.0), sent)
    torch.testing.assert_close(found, one_round(TaskVectors("sum"), sent), rtol=1e-14, atol=1e-14)


def test_the_mean_is_fedavg_with_equal_weights(fit):
    states = [
        read(fit(rule, Regression(dtype="float64"), ToyData(dtype="float64")).path / "checkpoints" / "last").state
        for rule in (TaskVectors("mean"), FedAvg(weighting="uniform"))
    ]
    assert tree.equal(*states)


def test_the_order_of_clients_does_not_matter():
    sent = vectors()
    updates = [Update(f"client-{i}", 1.0, lambda v=v: v) for i, v in enumerate(sent)]
    for mode in ("sum", "mean", "ties", "dare"):
        rule = TaskVectors(mode)
        found = [
            rule.aggregate(rule.init(tree.zeros(sent[0])), some, Server(0, seeds.generator(0, "test")))
            for some in (updates, updates[::-1])
        ]
        assert tree.equal(*found)


def test_sealed_updates_can_be_summed_only():
    sent = vectors()
    for mode in ("sum", "mean"):
        assert tree.equal(one_round(TaskVectors(mode), sent), one_round(TaskVectors(mode), sent, sealed=True))
    for mode in ("ties", "dare"):
        with pytest.raises(Sealed, match="sealed"):
            one_round(TaskVectors(mode), sent, sealed=True)


@pytest.mark.parametrize(
    ("wrong", "field"),
    [({"mode": "svd"}, "mode"), ({"coefficient": 0}, "coefficient"), ({"density": 0}, "density"),
     ({"density": 1.1}, "density")],
)  # fmt: skip
def test_refused_by_name(wrong, field):
    with pytest.raises(FedlitError, match=rf"TaskVectors\.{field}"):
        TaskVectors(**wrong)


# -- from files --------------------------------------------------------------------------------------------------------
class Network(nn.Module):
    def __init__(self):
        super().__init__()
        self.config = {"model_type": "custom"}
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.first, self.second = nn.Linear(5, 4), nn.Linear(4, 3)
        self.double()

    def forward(self, x):
        return self.second(torch.tanh(self.first(x)))


def adapter(folder, seed, rank=2, **settings):
    """An adapter on the network with random entries, saved by PEFT; its path."""
    config = LoraConfig(**{"r": rank, "lora_alpha": 6, "target_modules": ["first", "second"], **settings})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = get_peft_model(Network(), config, autocast_adapter_dtype=False)
        generator = torch.Generator().manual_seed(seed)
        for p in model.parameters():
            if p.requires_grad:
                p.data = torch.randn(p.shape, generator=generator, dtype=p.dtype)
        model.save_pretrained(folder)
    return folder


def loaded(folder, into=None):
    """``{adapted layer: scaling * B A}`` of a folder, as PEFT itself loads it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = into or PeftModel.from_pretrained(Network(), folder, autocast_adapter_dtype=False)
    return {
        name: module.get_delta_weight(model.active_adapter).detach()
        for name, module in model.base_model.named_modules()
        if hasattr(module, "get_delta_weight")
    }


@pytest.fixture
def clients(tmp_path):
    return [adapter(tmp_path / f"client-{i}", i + 1) for i in range(3)]


@pytest.mark.parametrize(("mode", "peft"), [("sum", "linear"), ("ties", "ties")])
def test_merged_files_are_what_peft_merges(mode, peft, clients, tmp_path):
    """``add_weighted_adapter`` with weights 1; what DARE draws there also depends on PEFT's own initial values."""
    model = PeftModel.from_pretrained(Network(), clients[0], adapter_name="c0", autocast_adapter_dtype=False)
    for i in (1, 2):
        model.load_adapter(clients[i], f"c{i}", autocast_adapter_dtype=False)
    with torch.random.fork_rng():
        model.add_weighted_adapter(["c0", "c1", "c2"], [1.0] * 3, "merged", combination_type=peft, density=0.5)
    model.set_adapter("merged")
    expected = loaded(None, model)
    found = loaded(merge_models(clients, tmp_path / "out", mode=mode, density=0.5))
    assert len(found) == 2
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)  # PEFT keeps the scaling's root in float32
    assert all(value.abs().max() > 0.1 for value in found.values())


def test_merging_from_a_base_is_its_arithmetic(clients, tmp_path):
    base = adapter(tmp_path / "base", 99)
    out = merge_models(clients, tmp_path / "out", base, "mean", coefficient=0.5)
    read_back = [load_file(path / "adapter_model.safetensors") for path in (out, base, *clients)]
    merged, start, *own = read_back
    for name, value in merged.items():
        expected = start[name] + 0.5 * (sum(o[name] for o in own) / 3 - start[name])
        torch.testing.assert_close(value, expected, rtol=1e-14, atol=1e-14)
    assert json.loads((out / "adapter_config.json").read_text()) == json.loads(
        (base / "adapter_config.json").read_text()
    )
    assert json.loads((out / "merge.json").read_text())["clients"] == [str(c) for c in clients]


def test_one_client_merged_by_all_is_that_client(clients, tmp_path):
    own = load_file(clients[0] / "adapter_model.safetensors")
    for mode in ("sum", "mean", "ties", "dare"):
        for base in (None, adapter(tmp_path / "base", 99)):
            out = merge_models(clients[:1], tmp_path / f"{mode}-{base is None}", base, mode, density=1.0)
            torch.testing.assert_close(load_file(out / "adapter_model.safetensors"), own, rtol=1e-14, atol=1e-14)


def test_a_run_of_local_models_is_merged_and_loaded_again(fit, tmp_path, capsys):
    data = SimulatedVitals(subjects=6, sites=2, seconds=30.0)
    folder = fit(LocalOnly(), ForecastingTask(), data, max_rounds=1, fast_dev_run=True)
    models = sorted((folder.path / "adapters" / "clients").iterdir())
    assert len(models) >= 2
    merging.main(["--clients", *map(str, models), "--mode", "mean", "--out", str(tmp_path / "merged")])
    assert f"mean of {len(models)} models" in capsys.readouterr().out
    task = ForecastingTask()
    task.use_stand_in()
    task.configure_model()
    network = task.network.unload()
    again = PeftModel.from_pretrained(network, tmp_path / "merged")
    own = [load_file(m / "adapter_model.safetensors") for m in models]
    name = next(n for n in sorted(own[0]) if "lora_A" in n)
    found = again.state_dict()[name.replace("lora_A.weight", "lora_A.default.weight")]
    torch.testing.assert_close(found, sum(o[name] for o in own) / len(own))


def whole(path, seed, **extra):
    generator = torch.Generator().manual_seed(seed)
    path.mkdir()
    tensors = {n: torch.randn(p.shape, generator=generator) for n, p in Network().state_dict().items()}
    save_file({**tensors, **extra}, path / "model.safetensors", metadata={"format": "pt"})
    (path / "config.json").write_text('{"model_type": "t5"}')
    return path


def test_whole_weights_are_merged(tmp_path):
    steps = {"steps": torch.tensor([7])}
    base, a, b = (whole(tmp_path / name, i, **steps) for i, name in enumerate(["base", "a", "b"]))
    out = merge_models([a, b / "model.safetensors"], tmp_path / "out", base, "sum")
    merged, start, one, two = (load_file(p / "model.safetensors") for p in (out, base, a, b))
    for name in Network().state_dict():
        torch.testing.assert_close(merged[name], one[name] + two[name] - start[name])
    assert merged["steps"].tolist() == [7]
    assert json.loads((out / "config.json").read_text()) == {"model_type": "t5"}


def test_shards_are_read(tmp_path):
    base, a = whole(tmp_path / "base", 0), whole(tmp_path / "a", 1)
    own = load_file(a / "model.safetensors")
    (a / "model.safetensors").unlink()
    for i, name in enumerate(own):
        save_file({name: own[name]}, a / f"model-{i}.safetensors")
    places = {name: f"model-{i}.safetensors" for i, name in enumerate(own)}
    (a / "model.safetensors.index.json").write_text(json.dumps({"weight_map": places}))
    out = merge_models([a], tmp_path / "out", base, "sum")
    torch.testing.assert_close(load_file(out / "model.safetensors"), own)
    (a / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"x": "../base/model.safetensors"}}))
    with pytest.raises(FedlitError, match="does not say which files of this folder"):
        merge_models([a], tmp_path / "other", base, "sum")


def refuse(match, clients, out, base=None, **settings):
    with pytest.raises(FedlitError, match=match):
        merge_models(clients, out, base, **settings)
    assert not out.exists()


def test_models_that_do_not_fit_are_refused_by_name(clients, tmp_path):
    out = tmp_path / "out"
    refuse("other.*has r 3, .*has 2", [*clients, adapter(tmp_path / "other", 5, rank=3)], out)
    refuse("alpha.*has lora_alpha 8", [*clients, adapter(tmp_path / "alpha", 5, lora_alpha=8)], out)
    refuse("rs.*has use_rslora True", [*clients, adapter(tmp_path / "rs", 5, use_rslora=True)], out)
    refuse("fewer.*has target_modules", [*clients, adapter(tmp_path / "fewer", 5, target_modules=["first"])], out)
    refuse("kinds holds whole weights, .*an adapter", [*clients, whole(tmp_path / "kinds", 1)], out)
    refuse("given twice", [*clients, clients[0]], out)
    refuse("no client", [], out)
    refuse("nowhere is neither a folder", [tmp_path / "nowhere"], out)
    refuse("TaskVectors.density", clients, out, density=2)
    refuse("give --base", [tmp_path / "kinds"], out)
    full = adapter(tmp_path / "full", 5, modules_to_save=["second"], target_modules=["first"])
    refuse("full: .*second.* is no LoRA matrix", [full], out)
    merge_models([full], tmp_path / "with-base", full)


def test_tensors_that_do_not_fit_are_refused_by_name(clients, tmp_path):
    out, file = tmp_path / "out", clients[2] / "adapter_model.safetensors"
    name = "base_model.model.first.lora_A.weight"
    good = load_file(file)
    for change, match in (
        ({name: good[name][:1].clone()}, rf"client-2 has {name} as torch.float64\[1, 5\], .* as torch.float64\[2, 5\]"),
        ({name: good[name].float()}, rf"client-2 has {name} as torch.float32"),
        ({name: good[name] * float("nan")}, rf"client-2.*{name} is not finite"),
        ({"extra": torch.ones(1)}, "client-2 has extra"),
    ):
        save_file({**good, **change}, file)
        refuse(match, clients, out)
    save_file({n: v for n, v in good.items() if n != name}, file)
    refuse(f"client-2 lacks {name}", clients, out)
    file.write_bytes(b"nothing")
    refuse("cannot be read as safetensors", clients, out)
    file.unlink()
    refuse("holds no adapter_model.safetensors", clients, out)
    (clients[1] / "adapter_config.json").write_text("{")
    refuse("cannot be read as JSON", clients, out)


def test_nothing_is_written_over(clients, tmp_path):
    with pytest.raises(FedlitError, match="client-1 is there already"):
        merge_models(clients, clients[1])


def test_the_command_line_says_what_is_wrong(clients, tmp_path):
    for arguments, match in (
        (["--clients", "a"], "--out"), (["--mode", "svd", "--clients", "a", "--out", "b"], "invalid choice: 'svd'"),
        (["--clients", "a", "--out", "b", "--densty", "1"], "densty"),
    ):  # fmt: skip
        with pytest.raises(FedlitError, match=match):
            merging.main(arguments)


def test_dare_depends_on_the_seed_alone(clients, tmp_path):
    blobs = [
        (merge_models(clients, tmp_path / f"out{i}", mode="dare", seed=seed) / "adapter_model.safetensors").read_bytes()
        for i, seed in enumerate([0, 0, 1])
    ]
    assert blobs[0] == blobs[1] != blobs[2]
