"""What training takes, by the allocator's own account."""

from __future__ import annotations

from torch.profiler import ProfilerActivity, profile


def allocated(step):
    """The most bytes that the CPU's allocator had given out at one time, by its own events."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as seen:
        step()
    now = peak = 0
    events = [one for one in seen.profiler.kineto_results.events() if one.name() == "[memory]"]
    for event in sorted(events, key=lambda one: one.start_ns()):
        now += event.nbytes()
        peak = max(peak, now)
    return peak
