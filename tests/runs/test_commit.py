"""One commit: a kill between any two of its steps costs nothing, and it touches what changed alone."""

from __future__ import annotations

import os

import pytest
import torch
from toys import contents

from fedlit import tree
from fedlit.runs.checkpoint import Checkpoints


def state(value: float) -> dict:
    return {"params": {"w": torch.full((3,), value)}}


class Killed(BaseException):
    """A kill in the middle of a commit."""


def steps_of_a_commit(monkeypatch, checkpoints, stop: int | None, best: bool) -> int:
    """Commit a round, dying before the ``stop``-th change on disk; the number of changes."""
    count = 0

    def counted(function):
        def call(*args, **kwargs):
            nonlocal count
            count += 1
            if count == stop:
                raise Killed
            return function(*args, **kwargs)

        return call

    with monkeypatch.context() as patch:
        for name in ("rename", "replace", "link", "unlink", "symlink", "mkdir", "rmdir", "fsync"):
            patch.setattr(os, name, counted(getattr(os, name)))
        checkpoints.staging.mkdir(parents=True)
        (checkpoints.staging / "a.safetensors").write_bytes(b"new")
        checkpoints.commit(2, state(2.0), {}, best)
    return count


@pytest.mark.parametrize("best", [True, False])
def test_a_kill_at_any_step_of_a_commit_leaves_the_old_round_or_the_new(tmp_path, monkeypatch, best):
    def fresh(name: str) -> Checkpoints:
        checkpoints = Checkpoints(tmp_path / name)
        for done, value in enumerate((b"first", b"old")):
            checkpoints.staging.mkdir(parents=True)
            for client in "ab":
                (checkpoints.staging / f"{client}.safetensors").write_bytes(value)
            checkpoints.commit(done, state(float(done)), {}, best=not done)
        return checkpoints

    total = steps_of_a_commit(monkeypatch, fresh("whole"), None, best)
    wanted = {name: contents(tmp_path / "whole" / name) for name in ("last", "best")}
    assert (wanted["last"] == wanted["best"]) is best
    outcomes = set()
    for stop in range(1, total + 1):
        checkpoints = fresh(f"stop-{stop}")
        with pytest.raises(Killed):
            steps_of_a_commit(monkeypatch, checkpoints, stop, best)
        committed = checkpoints.read()
        outcomes.add(committed.round)
        assert tree.equal(committed.state, state(float(committed.round)))
        kept = contents(checkpoints.memory())
        assert kept == {"a.safetensors": b"old" if committed.round == 1 else b"new", "b.safetensors": b"old"}
        if committed.round == 1:  # goes on as a resumed run does
            checkpoints.clear_staging()
            steps_of_a_commit(monkeypatch, checkpoints, None, best)
        assert {name: contents(checkpoints.folder / name) for name in wanted} == wanted
    assert outcomes == {1, 2}


def test_a_kill_while_memories_are_put_together_is_mended_however_often(tmp_path, monkeypatch):
    checkpoints = Checkpoints(tmp_path)
    for done, clients in enumerate(("abcd", "ab")):
        checkpoints.staging.mkdir(parents=True)
        for client in clients:
            (checkpoints.staging / f"{client}.safetensors").write_bytes(f"{client}{done}".encode())
        if not done:
            checkpoints.commit(0, state(0.0), {})
    replaced = os.replace

    def killed(source, target):
        if os.path.basename(os.path.dirname(target)) == "memory":
            raise Killed
        replaced(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", killed)
        with pytest.raises(Killed):
            checkpoints.commit(1, state(1.0), {})
        with pytest.raises(Killed):
            checkpoints.read()
    checkpoints.clear_staging()
    assert checkpoints.read().round == 1
    kept = {k[0]: v for k, v in contents(checkpoints.memory()).items()}
    assert kept == {"a": b"a1", "b": b"b1", "c": b"c0", "d": b"d0"}
    assert sorted(os.listdir(tmp_path / "last")) == ["memory", "meta.json", "state.safetensors"]


def test_a_commit_touches_the_memories_that_changed_alone(tmp_path, monkeypatch):
    checkpoints = Checkpoints(tmp_path)

    def stage(clients):
        checkpoints.staging.mkdir(parents=True)
        for client in clients:
            (checkpoints.staging / f"{client}.safetensors").write_bytes(b"x")

    stage(range(50))
    checkpoints.commit(0, state(0.0), {})
    touched = []
    for name in ("link", "replace", "unlink"):
        function = getattr(os, name)
        monkeypatch.setattr(os, name, lambda *a, f=function, **k: (touched.append(str(a[0])), f(*a, **k))[1])
    stage(range(3))
    checkpoints.commit(1, state(1.0), {})
    assert {path.rsplit("/", 1)[-1] for path in touched if "client" in path or path.endswith(".safetensors")} == {
        "0.safetensors", "1.safetensors", "2.safetensors", "state.safetensors"
    }  # fmt: skip
    assert len(os.listdir(checkpoints.memory())) == 50
