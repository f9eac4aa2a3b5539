"""Freed memory that the process uses again."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

from fedlit.engine.vectorized.heap import keep_freed_memory

glibc = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the allocator is not glibc's")
FAULTS = """
import resource, torch
from fedlit.engine.vectorized.heap import keep_freed_memory

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(5):
        torch.ones(16 << 20)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

faults()
without = faults()
done = keep_freed_memory({})
for _ in range(3):  # until free blocks of that size lie about
    faults()
print(done, without, faults())
"""


def in_process(code):
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    return ended.stdout.split()


@glibc
def test_memory_that_was_freed_is_not_taken_from_the_system_again():
    done, without, kept = in_process(FAULTS)
    assert done == "True"
    assert int(kept) < int(without) / 10, "64 MiB five times, which the system would clear page by page"


@pytest.mark.parametrize("name", ["MALLOC_TRIM_THRESHOLD_", "GLIBC_TUNABLES"])
def test_an_allocator_that_the_user_has_set_up_is_left_as_it_is(name):
    assert not keep_freed_memory({name: "anything"})


def test_systems_without_glibc_are_left_as_they_are(monkeypatch):
    monkeypatch.setattr(sys, "platform", "darwin")
    assert not keep_freed_memory({})
