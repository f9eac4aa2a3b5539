"""One commit: a kill between any two of its steps costs nothing, and it touches what changed alone."""

from __future__ import annotations

import os

import pytest
import torch
from toys import contents

from fedlit import tree
from fedlit.errors import FedlitError
from fedlit.runs.checkpoint import Checkpoints
from fedlit.runs.folder import RunFolder


def state(value: float) -> dict:
    return {"params": {"w": torch.full((3,), value)}}


class Killed(BaseException):
    """A kill in the middle of a commit."""


def commit(folder: RunFolder, done: int, names: dict[str, str], best: bool = False) -> None:
    """As the loop commits: the names of clients' states first, then the round that says how many of them count."""
    for client, name in names.items():
        folder.states.take(client, name)
    folder.checkpoints.commit(done, state(float(done)), folder.states.commit(done, best), best)


def steps_of_a_commit(monkeypatch, folder, stop: int | None, best: bool) -> int:
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
        commit(folder, 2, {"a": "new"}, best)
    return count


def known(folder: RunFolder, name: str) -> dict[str, str]:
    again = RunFolder(folder.path)
    again.states.restore(again.checkpoints.read(name).meta)
    return again.states.names


@pytest.mark.parametrize("best", [True, False])
def test_a_kill_at_any_step_of_a_commit_leaves_the_old_round_or_the_new(tmp_path, monkeypatch, best):
    def fresh(name: str) -> RunFolder:
        folder = RunFolder(tmp_path / name)
        (folder.path / "checkpoints").mkdir(parents=True)
        for done, value in enumerate(("first", "old")):
            commit(folder, done, {"a": value, "b": value}, best=not done)
        return folder

    whole = fresh("whole")
    total = steps_of_a_commit(monkeypatch, whole, None, best)
    wanted = {name: contents(tmp_path / "whole" / "checkpoints" / name) for name in ("last", "best")}
    assert (wanted["last"] == wanted["best"]) is best
    assert known(whole, "best") == ({"a": "new", "b": "old"} if best else {"a": "first", "b": "first"})
    outcomes = set()
    for stop in range(1, total + 1):
        folder = fresh(f"stop-{stop}")
        with pytest.raises(Killed):
            steps_of_a_commit(monkeypatch, folder, stop, best)
        committed = folder.checkpoints.read()
        outcomes.add(committed.round)
        assert tree.equal(committed.state, state(float(committed.round)))
        assert known(folder, "last") == {"a": "old" if committed.round == 1 else "new", "b": "old"}
        again = RunFolder(folder.path)
        if committed.round == 1:  # goes on as a resumed run does
            again.checkpoints.clean()
            again.states.restore(committed.meta, again.checkpoints.read("best").meta)
            again.states.table.cut(committed.meta["states_bytes"])
            steps_of_a_commit(monkeypatch, again, None, best)
        assert {name: contents(folder.path / "checkpoints" / name) for name in wanted} == wanted
        assert known(again, "last") == {"a": "new", "b": "old"}
    assert outcomes == {1, 2}


def test_a_commit_writes_the_names_that_changed_alone(tmp_path):
    folder = RunFolder(tmp_path)
    (tmp_path / "checkpoints").mkdir()
    commit(folder, 0, {f"c{i}": "first" for i in range(50)})
    before = folder.states.table.size()
    commit(folder, 1, {f"c{i}": "second" for i in range(3)})
    assert [row["client"] for row in folder.states.table.read()[50:]] == ["c0", "c1", "c2"]
    assert folder.states.table.size() - before < before / 10
    assert len(known(folder, "last")) == 50


def test_a_name_that_was_altered_changes_what_the_round_says(tmp_path):
    metas = []
    for name in ("first", "other"):
        folder = RunFolder(tmp_path / name)
        (folder.path / "checkpoints").mkdir(parents=True)
        commit(folder, 0, {"a": name})
        metas.append(Checkpoints(folder.path / "checkpoints").read().meta["states_sha256"])
    assert len({*metas}) == 2


@pytest.mark.parametrize(
    "damage", [lambda b: b"", lambda b: b[:-9], lambda b: b.replace(b"h\xc3\xb4pital", b"hotel---")]
)
def test_a_table_of_names_that_is_not_what_the_round_says_is_refused(tmp_path, damage):
    folder = RunFolder(tmp_path)
    (tmp_path / "checkpoints").mkdir()
    commit(folder, 0, {"h\u00f4pital": "first", "b": "first"})
    size = folder.states.table.size()
    folder.states.table.append([(1, "b", "of a round that was not committed")])
    assert known(folder, "last") == {"h\u00f4pital": "first", "b": "first"}
    folder.states.table.path.write_bytes(damage(folder.states.table.path.read_bytes()[:size]))
    with pytest.raises(FedlitError, match=r"states\.csv: shorter than the committed round says, or altered"):
        known(folder, "last")


def test_a_run_killed_between_the_two_links_and_again_before_the_next_round_goes_on(tmp_path, monkeypatch):
    """The round is whole: its names must not be cut away from under the link that was moved."""
    folder = RunFolder(tmp_path)
    (tmp_path / "checkpoints").mkdir()
    commit(folder, 0, {"a": "first"}, best=True)
    linked = Checkpoints._link

    def killed(self, name, target):
        if name == "last":
            raise Killed
        linked(self, name, target)

    with monkeypatch.context() as patch:
        patch.setattr(Checkpoints, "_link", killed)
        with pytest.raises(Killed):
            commit(folder, 1, {"a": "second"}, best=True)
    for _ in range(2):  # a resume, and another after a kill before its first round
        again = RunFolder(tmp_path)
        again.checkpoints.clean()
        committed = again.checkpoints.read()
        again.states.restore(committed.meta, again.checkpoints.read("best").meta)
        again.states.table.cut(committed.meta["states_bytes"])
        assert committed.round == 1
        assert known(again, "last") == known(again, "best") == {"a": "second"}
