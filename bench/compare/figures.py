"""The arithmetic of the tables: medians, ratios, geometric means, the best of several."""

import math
import statistics

NOISY = 0.3  # (most - least) / median from which a figure is marked
BEHIND = 1.05  # a ratio from which ours counts as behind; less is noise


class Figure:
    """What the rounds of one row under one allocator say: median, least, most, whether noisy."""

    def __init__(self, numbers):
        if not numbers or None in numbers:
            raise ValueError("a round is missing")
        self.median = statistics.median(numbers)
        self.least, self.most = min(numbers), max(numbers)
        self.noisy = self.most - self.least > NOISY * self.median


def figures_of(by_name):
    """Name → Figure of a row, of those under which no round failed."""
    return {name: Figure(numbers) for name, numbers in by_name.items()
            if numbers and None not in numbers}


def ratio(ours, theirs):
    """Ours ÷ theirs. Two zeros are equal; next to a single one, a ratio says nothing: None."""
    if ours is None or theirs is None:
        return None
    if ours.median == theirs.median:
        return 1.0
    return ours.median / theirs.median if ours.median > 0 and theirs.median > 0 else None


def best_of(figures):
    """The name with the lowest median; None of none."""
    return min(figures, key=lambda name: figures[name].median, default=None)


def geometric_mean(ratios):
    """Of those that are known; None of none."""
    known = [one for one in ratios if one is not None]
    return math.exp(statistics.fmean(map(math.log, known))) if known else None
