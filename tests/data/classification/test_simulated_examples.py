"""Simulated images, texts, sounds and signals: the same for a seed, other between sites, told apart by class."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fedlit.data import Dirichlet, SimulatedImages, SimulatedSignals, SimulatedSounds, SimulatedTexts
from fedlit.errors import FedlitError

KINDS = [SimulatedImages, SimulatedTexts, SimulatedSounds, SimulatedSignals]
SHAPES = {"image": (3, 32, 32, 3), "audio": (3, 16000), "signal": (3, 3, 256)}


def ready(kind, **arguments):
    data = kind(**{"subjects": 24, "sites": 3, "per_subject": 2, "mix": 5.0} | arguments)
    data.setup()
    return data


def peaks(x):
    return np.abs(x).max() / x.std()


def listed(value):
    return value if isinstance(value, list) else value.tolist()


@pytest.mark.parametrize("kind", KINDS)
def test_sites_are_clients_and_everything_is_said_to_be_simulated(kind):
    data = ready(kind)
    assert data.clients == ["site-1", "site-2", "site-3"]
    assert data.describe()["simulated"]
    assert data.describe()["leaks"] == {"subjects": 0, "duplicates": 0}
    batch = data.dataset("site-1", "train").__getitems__([0, 1, 2])
    assert batch["label"].dtype == torch.int64
    if data.modality == "text":
        assert all(isinstance(text, str) and len(text.split()) >= 4 for text in batch["x"])
    else:
        assert tuple(batch["x"].shape) == SHAPES[data.modality]
    (loaded,) = {len(example.labels) for example in data.examples}
    assert loaded == 1


@pytest.mark.parametrize("kind", KINDS)
def test_a_seed_gives_the_same_values_and_another_gives_others(kind):
    made = [ready(kind, simulation_seed=seed).dataset("site-2", "train") for seed in (0, 0, 1)]
    first, again, other = (listed(examples.__getitems__([0, 3])["x"]) for examples in made)
    assert first == again
    assert first != other


@pytest.mark.parametrize(
    ("kind", "tells"),
    [
        (SimulatedImages, {"sparse": lambda x: -x.mean(), "dense": lambda x: -x.mean()}),
        (SimulatedSounds, {"normal": peaks, "crackle": peaks}),
        (SimulatedSignals, {"usual": lambda x: x[1].std(), "wide": lambda x: x[1].std()}),
        (SimulatedTexts, {"nervous": lambda x: x.count("seizure"), "cardiovascular": lambda x: -x.count("artery")}),
    ],
)  # fmt: skip
def test_a_class_is_told_by_what_the_docstring_says(kind, tells):
    """Dense images are darker, crackles have peaks, a wide QRS complex has more energy, texts have words of a class."""
    data = ready(kind, subjects=60, sites=2, mix=50.0)
    means = []
    for label, measure in tells.items():
        values = [measure(example.value) for example in data.examples if example.label == label]
        assert len(values) > 4
        means.append(float(np.mean(values)))
    assert means[0] < means[1] if kind is not SimulatedTexts else means[0] > means[1]


def test_sites_differ_in_how_common_a_class_is_and_less_so_with_a_larger_mix():
    def apart(mix):
        counts = [
            c["class_counts"]["train"]
            for c in ready(SimulatedImages, subjects=240, mix=mix).describe()["clients"].values()
        ]
        shares = np.array([[own.get(name, 0) for name in SimulatedImages.class_names] for own in counts], float)
        shares /= shares.sum(1, keepdims=True)
        return np.abs(shares - shares.mean(0)).sum(1).mean()

    assert apart(0.2) > 2 * apart(50.0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [({"sites": 0}, "data.sites is 0"), ({"subjects": 2}, "data.subjects 2"), ({"mix": 0}, "data.mix 0"),
     ({"per_subject": 0}, "data.per_subject is 0")],
)  # fmt: skip
def test_arguments_out_of_range_are_named(arguments, message):
    with pytest.raises(FedlitError, match=message):
        ready(SimulatedImages, **arguments)


def test_other_partitions_and_stand_ins_have_examples_for_everyone(tmp_path):
    data = SimulatedSounds(partition=Dirichlet(5, 0.5, min_records=8))
    data.use_stand_in(tmp_path)
    data.setup()
    assert len(data.clients) == 5
    assert all(len(data.dataset(client, split)) for client in data.clients for split in ("train", "val", "test"))
