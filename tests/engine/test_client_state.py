"""What clients keep: by name, never changed, one torn or gone is named, and old ones go."""

from __future__ import annotations

import errno
import json
import os

import pytest
import torch
from toys import Regression, ToyData, memories

from fedlit import tree
from fedlit.aggregators import FedAvg, LocalOnly
from fedlit.engine.client_state import ClientStates, Kept
from fedlit.errors import FedlitError
from fedlit.runs.checkpoint import read
from fedlit.trainer import FederatedTrainer


def kept(value: float) -> Kept:
    return Kept({"w": torch.full((9,), value)})


def test_a_state_is_read_back_by_its_name_alone(tmp_path):
    states = ClientStates(tmp_path)
    assert states.read("a", "").memory is None
    first = states.keep("a", 0, kept(1.0))
    second = states.keep("a", 1, kept(0.0), [first])
    assert first.startswith("0000-")
    assert second.startswith("0001-")
    assert states.read("a", first).memory["w"][0] == 1
    assert states.read("a", second).memory["w"][0] == 0


def test_the_same_state_has_the_same_name_and_another_another(tmp_path):
    states = ClientStates(tmp_path)
    assert states.keep("a", 3, kept(1.0)) == states.keep("b", 3, kept(1.0))
    assert len({states.keep("a", 3, kept(1.0)), states.keep("a", 4, kept(1.0)), states.keep("a", 3, kept(2.0))}) == 3


def test_states_that_are_not_named_are_removed(tmp_path):
    states = ClientStates(tmp_path)
    names = [states.keep("a", 0, kept(0.0))]
    for i in range(1, 5):
        names.append(states.keep("a", i, kept(float(i)), [names[0], names[-1]]))
    assert sorted(os.listdir(tmp_path / "a")) == sorted(f"{name}.safetensors" for name in (names[0], *names[-2:]))
    other = states.keep("b", 0, kept(0.0))
    assert states.read("a", names[0]).memory["w"][0] == 0
    assert states.read("b", other).memory["w"][0] == 0


@pytest.mark.parametrize("damage", [lambda b: b[:-4], lambda b: b[:-1] + bytes([b[-1] ^ 1]), lambda b: b""])
def test_a_torn_file_is_named(tmp_path, damage):
    states = ClientStates(tmp_path)
    name = states.keep("a", 0, kept(1.0))
    path = tmp_path / "a" / f"{name}.safetensors"
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(FedlitError, match=rf"a/{name}\.safetensors: torn or altered"):
        states.read("a", name)


def test_a_state_that_is_gone_is_named(fit):
    folder = fit(LocalOnly(), max_rounds=1)
    for path in (folder.client_states / "client-01").iterdir():
        path.unlink()
    with pytest.raises(FedlitError, match=r"client-01/0000-.*the state that client 'client-01' is to start from"):
        fit(LocalOnly(), max_rounds=2, ckpt_path="last")


@pytest.mark.parametrize(("client", "name"), [("../out", ""), ("a/b", ""), (".a", ""), ("a", "../../out"), ("a", "x")])
def test_no_name_leads_out_of_the_folder(tmp_path, client, name):
    with pytest.raises(FedlitError, match="no names under which a client's state could lie"):
        ClientStates(tmp_path / "in").keep(client, 0, kept(1.0)) if not name else ClientStates(tmp_path).read(
            client, name
        )
    assert not list(tmp_path.rglob("*.safetensors"))


def test_a_full_disk_leaves_what_was_there(tmp_path, monkeypatch):
    states = ClientStates(tmp_path)
    name = states.keep("a", 0, kept(1.0))

    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(FedlitError, match=r"a/0001-.*could not be written \(No space left"):
            states.keep("a", 1, kept(2.0), [name])
    assert states.read("a", name).memory["w"][0] == 1
    states.keep("a", 1, kept(3.0), [name])
    assert not [path for path in (tmp_path / "a").iterdir() if path.name.startswith(".")]


@pytest.mark.usefixtures("unrehearsed")
def test_a_memory_that_was_emptied_stays_empty(tmp_path, fit):
    """A client that throws its memory away must not find the old one again."""
    seen = []

    class Once(FedAvg):
        def init_memory(self, params):
            return {"first": params}

        def start(self, down, memory):
            seen.append(sorted(memory))
            return down

        def finish(self, w, down, memory, work):
            return tree.sub(w, down), {}

    fit(Once(), data=ToyData(num_clients=1), max_rounds=3, evaluate_at=["after_local"])
    # Also called for the template of the upload, with the initial memory, once a round.
    assert seen.count(["first"]) == 1 + 3
    assert seen.count([]) >= 2


def as_before_states_had_names(folder) -> None:
    """Turn a run folder into one of an earlier version: client states within the committed rounds."""
    for name in ("last", "best"):
        link = folder.path / "checkpoints" / name
        if not link.exists():
            continue
        (link / "memory").mkdir(exist_ok=True)
        for file, blob in memories(folder, name).items():
            (link / "memory" / file).write_bytes(blob)
    for name in ("last", "best"):
        meta = folder.path / "checkpoints" / name / "meta.json"
        if meta.exists():
            held = json.loads(meta.read_text())
            meta.write_text(json.dumps({k: v for k, v in held.items() if not k.startswith("states_")}))
    for path in sorted(folder.client_states.rglob("*.safetensors")):
        path.unlink()
    (folder.path / "checkpoints" / "states.csv").unlink()


def test_a_run_made_before_states_had_names_goes_on(fit):
    settings = {"task": Regression(lr=1.6), "monitor": "val/personal/mse"}
    whole = fit(LocalOnly(), max_rounds=6, **settings)
    cut = fit(LocalOnly(), max_rounds=4, **settings)
    as_before_states_had_names(cut)
    resumed = fit(LocalOnly(), max_rounds=6, ckpt_path=str(cut.path), **settings)
    assert memories(resumed) == memories(whole) != {}
    assert read(resumed.path / "checkpoints" / "best").round == read(whole.path / "checkpoints" / "best").round < 4
    scores = []
    for folder in (resumed, whole):
        trainer = FederatedTrainer(
            LocalOnly(), local_steps=2, accelerator="cpu", enable_progress_bar=False, monitor="val/personal/mse"
        )
        scores.append(trainer.validate(Regression(lr=1.6), ToyData(), str(folder.path / "checkpoints" / "best")))
    assert scores[0] == scores[1]
    assert (resumed.path / "metrics.csv").read_bytes() == (whole.path / "metrics.csv").read_bytes()
