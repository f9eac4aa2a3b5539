"""Where the words of a copy are in its source: what a model changed while copying is found and bridged."""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Sequence
from difflib import SequenceMatcher

TOKEN = re.compile(r"\w+|[^\w\s]")
MIN_SIMILARITY = 0.5
SMALL = 2500  # product of lengths up to which difflib compares two stretches
WORK = 30  # times the tokens of both texts: all that is looked at, so that no text makes the time quadratic
SHORT = 100  # characters up to which similarity is measured by characters


class Alignment:
    """Tokens of a copy (words, and signs one by one, case aside) paired with tokens of its source, in order.

    Stretches at both ends that are equal are paired; then, from word to word, what occurs once in both (the longest
    run of such words that is in one order: "patience"), and again in every stretch between them; short stretches
    without such words by ``difflib``. Deterministic; time grows with the length, not with its square: long stretches
    that share no unique word, and what is left after 30 looks at each token, stay unpaired.

    Args:
        copy: What was written.
        source: What was to be copied.
    """

    def __init__(self, copy: str, source: str) -> None:
        self.copy, self.source = copy, source
        self._a = [(found.start(), found.end()) for found in TOKEN.finditer(copy)]
        self._b = [(found.start(), found.end()) for found in TOKEN.finditer(source)]
        self._starts, self._stops = [token[0] for token in self._a], [token[1] for token in self._a]
        self._source_starts = [token[0] for token in self._b]
        self.pair = _pairs([copy[i:j].casefold() for i, j in self._a], [source[i:j].casefold() for i, j in self._b])
        self._paired = [i for i, partner in enumerate(self.pair) if partner >= 0]

    @property
    def share(self) -> float:
        """Share of the copy's tokens that are paired; 1.0 for an empty copy."""
        return sum(partner >= 0 for partner in self.pair) / len(self.pair) if self.pair else 1.0

    def find(self, start: int, stop: int) -> tuple[int, int] | None:
        """The place in the source of a span of the copy, or None.

        An end in a paired token is placed there. An end among unpaired ones is placed in the unpaired tokens of the
        source between the same neighbours: as many away from the paired token, or all where the span takes in all.
        What is found counts when at least half of the tokens of both are paired, or, up to 100 characters, when
        difflib's ratio is at least 0.5; failing that, where the same words are between the same neighbours.
        """
        first, last = bisect_right(self._stops, start), bisect_left(self._starts, stop) - 1
        if first > last:
            return None
        low_pair, high_pair = bisect_left(self._paired, first), bisect_right(self._paired, last)
        before = self._paired[low_pair - 1] if low_pair else -1
        after = self._paired[high_pair] if high_pair < len(self._paired) else len(self.pair)
        low = self.pair[before] if before >= 0 else -1
        high = self.pair[after] if after < len(self.pair) else len(self._b)
        place: tuple[int, int] | None
        if low_pair < high_pair:
            head, tail = self._paired[low_pair], self._paired[high_pair - 1]
            place = self._left(start, first, head, before, low), self._right(stop, last, tail, after, high)
        else:
            place = self._between(first, last, before, after, low, high)
        if place and place[0] < place[1] and self._alike(start, stop, *place, high_pair - low_pair):
            return place
        words = self.copy[start:stop].strip()
        if low + 1 >= high or not words:
            return None
        at = self.source.find(words, self._b[low + 1][0], self._b[high - 1][1])
        return (at, at + len(words)) if at >= 0 else None

    def _left(self, start: int, first: int, head: int, before: int, low: int) -> int:
        match = self.pair[head]
        if first == head:
            begin, end = self._b[match]
            return min(begin + max(0, start - self._starts[head]), end - 1)
        free = match - low - 1
        return self._b[match - (free if first == before + 1 else min(head - first, free))][0]

    def _right(self, stop: int, last: int, tail: int, after: int, high: int) -> int:
        match = self.pair[tail]
        if last == tail:
            begin, end = self._b[match]
            return max(end - max(0, self._stops[tail] - stop), begin + 1)
        free = high - match - 1
        return self._b[match + (free if last == after - 1 else min(last - tail, free))][1]

    def _between(self, first: int, last: int, before: int, after: int, low: int, high: int) -> tuple[int, int] | None:
        """Place of a span without a paired token: the source's whole stretch, or its tokens at the same positions."""
        free = high - low - 1
        if free == after - before - 1:
            return self._b[low + first - before][0], self._b[low + last - before][1]
        if free > 0 and (before, after) == (first - 1, last + 1):
            return self._b[low + 1][0], self._b[high - 1][1]
        return None

    def _alike(self, start: int, stop: int, begin: int, end: int, paired: int) -> bool:
        ours = bisect_left(self._starts, stop) - bisect_right(self._stops, start)
        theirs = bisect_left(self._source_starts, end) - bisect_right(self._source_starts, begin) + 1
        if 2 * paired >= MIN_SIMILARITY * (ours + theirs):
            return True
        if max(stop - start, end - begin) > SHORT:
            return False
        copied, source = self.copy[start:stop].casefold(), self.source[begin:end].casefold()
        return SequenceMatcher(None, copied, source, autojunk=False).ratio() >= MIN_SIMILARITY


def _pairs(a: Sequence[str], b: Sequence[str]) -> list[int]:
    """Index in ``b`` of the partner of each token of ``a``, or -1; partners are in increasing order."""
    out = [-1] * len(a)
    work = WORK * (len(a) + len(b))
    stretches = [(0, len(a), 0, len(b))]
    while stretches:
        i, j, k, m = stretches.pop()
        while i < j and k < m and a[i] == b[k]:
            out[i] = k
            i, k, work = i + 1, k + 1, work - 1
        while i < j and k < m and a[j - 1] == b[m - 1]:
            j, m, work = j - 1, m - 1, work - 1
            out[j] = m
        if i == j or k == m or work < 0:
            continue
        work -= j - i + m - k
        anchors = _anchors(a, b, i, j, k, m)
        if not anchors:
            if (j - i) * (m - k) <= SMALL:
                work -= (j - i) * (m - k) // 8
                for block in SequenceMatcher(None, a[i:j], b[k:m], autojunk=False).get_matching_blocks():
                    for step in range(block.size):
                        out[i + block.a + step] = k + block.b + step
            continue
        bounds = [(i - 1, k - 1), *anchors, (j, m)]
        for x, y in anchors:
            out[x] = y
        for (x, y), (z, w) in zip(bounds, bounds[1:], strict=False):
            if x + 1 < z and y + 1 < w:
                stretches.append((x + 1, z, y + 1, w))
    return out


def _anchors(a: Sequence[str], b: Sequence[str], i: int, j: int, k: int, m: int) -> list[tuple[int, int]]:
    """Tokens that occur once in each stretch: the longest run of them that goes up in both."""
    ones, twos = Counter(a[i:j]), Counter(b[k:m])
    place = {b[y]: y for y in range(k, m) if twos[b[y]] == 1}
    common = [(x, place[a[x]]) for x in range(i, j) if ones[a[x]] == 1 and a[x] in place]
    tails: list[int] = []  # lowest partner that ends a run of each length
    ends: list[int] = []  # which pair that is
    previous: list[int] = []
    for index, (_, y) in enumerate(common):
        at = bisect_left(tails, y)
        previous.append(ends[at - 1] if at else -1)
        tails[at : at + 1] = [y]
        ends[at : at + 1] = [index]
    run, index = [], ends[-1] if ends else -1
    while index >= 0:
        run.append(common[index])
        index = previous[index]
    return run[::-1]
