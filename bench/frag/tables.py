"""The tables: what is left of the memory at the end, and what it took over the load.

A line is a list of cells: title, ours, what the better packer holds, the best peer, our ratio to it,
and every peer. Numbers by allocator come in the order of the columns, ours first; less is better in
every row.
"""

import collections
import statistics

import measures

ADVERSARY = "doubling"
PACKED = "packed"

# A row of the first table: title, workload, measure, digits after the point.
Row = collections.namedtuple("Row", "title workload measure digits")
ROWS = [
    Row("survivors", "survivors", measures.end, 2),
    Row("survivors_95", "survivors_95", measures.end, 2),
    Row("size_shift", "size_shift", measures.end, 2),
    Row("  at the last peak", "size_shift", measures.last_peak, 2),
    Row("server", "server", measures.end, 2),
    Row("doubling", "doubling", measures.end, 2),
    Row("large", "large", measures.end, 2),
    Row("large_churn", "large_churn", measures.end, 2),
    Row("peak_trough", "peak_trough", measures.end, 2),
    Row("thread_churn", "thread_churn", measures.end, 2),
    Row("remote_free", "remote_free", measures.end, 2),
    Row("redis: PSS ÷ data", "redis", measures.over_data, 2),
    Row("pinned: MiB", "pinned", measures.end_mib, 1),
    Row("idle: % kept after 10 s", "idle", measures.percent_kept_after_10_s, 1),
    Row("parked: KiB per thread", "parked", measures.kib_per_parked_thread, 0),
    Row("empty: MiB", "empty", measures.end_mib, 2),
]
# The other tables: one measure for each workload with a load to speak of.
NO_LOAD = ["empty", "parked"]
MEASURES = [
    ("pages with objects ÷ live at the end", measures.placed, 2),
    ("Johnstone–Wilson #1: mean memory ÷ mean live", measures.mean_over_mean, 2),
    ("Johnstone–Wilson #3: most memory ÷ live then", measures.at_most_memory, 2),
    ("Johnstone–Wilson #4: most memory ÷ most live", measures.most_over_most, 2),
    ("internal fragmentation at the peak, %", measures.percent_internal, 1),
    ("metadata at the peak, % of live", measures.percent_metadata, 2),
]
# Below them, over all workloads but the adversary.
SUMS = [("median", statistics.median), ("mean", statistics.fmean), ("worst", max)]


def tables(runs, names, packers):
    """Title and lines of each table. runs: workload → allocator or packer → its Runs, one a round."""

    def numbers(workload, measure):
        return {name: median_of(runs[workload][name], measure) for name in names}

    def packed(workload, measure):
        known = [median_of(runs[workload][name], measure) for name in packers]
        return min((number for number in known if number is not None), default=None)

    yield "PSS ÷ live at the end", [
        line_of(row.title, numbers(row.workload, row.measure), packed(row.workload, row.measure),
                row.digits)
        for row in ROWS if row.workload in runs]

    for title, measure, digits in MEASURES:
        shown = {workload: numbers(workload, measure) | {PACKED: packed(workload, measure)}
                 for workload in runs if workload not in NO_LOAD}
        shown = {workload: by_name for workload, by_name in shown.items()
                 if any(by_name[name] is not None for name in names)}
        for label, sum_up in SUMS if len(shown) > 1 else []:
            sums = {}
            for name in [*names, PACKED]:
                known = [by_name[name] for workload, by_name in shown.items()
                         if workload not in (ADVERSARY, *dict(SUMS)) and by_name[name] is not None]
                sums[name] = sum_up(known) if known else None
            shown[label] = sums
        if shown:
            yield title, [line_of(workload, by_name, by_name.pop(PACKED), digits)
                          for workload, by_name in shown.items()]


def median_of(runs, measure):
    """Over the rounds; None when there is none, or a round does not know."""
    numbers = [measure(run) for run in runs]
    return statistics.median(numbers) if numbers and None not in numbers else None


def line_of(title, by_name, packed, digits):
    def text(number):
        return "–" if number is None else f"{number:.{digits}f}"

    ours, *_ = by_name.values()
    peers = dict(list(by_name.items())[1:])
    known = {name: number for name, number in peers.items() if number is not None}
    best = min(known, key=known.get, default=None)
    ratio = ours / known[best] if best and ours is not None and known[best] > 0 else None
    behind = ratio is not None and round(ratio, 2) > 1
    return [title, text(ours) + ("*" if behind else " "), text(packed),
            "–" if best is None else f"{best} {text(known[best])}",
            "–" if ratio is None else f"{ratio:.2f}", *map(text, peers.values())]


def show(title, lines, names):
    ours, *peers = names
    head = [title, ours + " ", PACKED, "best peer", "÷ best", *peers]
    lines = [head, *lines]
    widths = [max(map(len, column)) for column in zip(*lines)]
    for number, (first, *cells) in enumerate(lines):
        cells = [cell.rjust(width) for cell, width in zip(cells, widths[1:])]
        print("  ".join([first.ljust(widths[0]), *cells]).rstrip())
        if number == 0:
            print("-" * (sum(widths) + 2 * len(widths) - 2))
    print()
