"""What one run says: its samples by name, and the numbers that the tables are made of.

A run is what `ashlar-frag --json` writes, and `lru.py` in the same form. `None` stands for what is
not known: an allocator that does not tell, or a run that was too short.
"""

import bisect

MIB = 1 << 20
PARKED_THREADS = 64  # of the workload parked; many_threads.cpp makes as many


class Run:
    def __init__(self, record):
        self.record = record
        columns = list(zip(*record["samples"]))
        self.by_name = dict(zip(record["columns"], columns))
        marks = self.by_name["mark"]
        self.start = marks.index("start")
        self.load_end = marks.index("load_end")
        self.end = len(marks) - 1

    def __getitem__(self, name):
        return self.by_name[name]

    def at_mark(self, mark):
        return self["mark"].index(mark)

    def after_load(self, seconds):
        """The first sample so long after the load, or None."""
        times = self["time_s"]
        index = bisect.bisect_left(times, times[self.load_end] + seconds)
        return index if index <= self.end else None

    def memory(self, index):
        """Bytes that the process holds, by PSS, without the workload's own tables."""
        return self["pss"][index] - self["tables"][index]

    def over_live(self, index):
        live = self["live"][index]
        return self.memory(index) / live if live else None

    def load(self):
        """The samples from the start to the end of the load."""
        return range(self.start, self.load_end + 1)

    def peak(self):
        return max(self.load(), key=lambda index: self["live"][index])

    def sum_over_load(self, value):
        """The integral of value(index) over the bytes moved."""
        moved = self["moved"]
        return sum((value(index - 1) + value(index)) / 2 * (moved[index] - moved[index - 1])
                   for index in self.load()[1:])


# What is left of the memory


def end(run):
    return run.over_live(run.end)


def placed(run):
    """Pages that an object lies on, over live bytes. What an allocator holds beyond is not placement."""
    live = run["live"][run.end]
    pages = run.record.get("pages_with_objects")
    return pages / live if pages and live else None


def over_data(run):
    """redis: over the keys and values that are still there."""
    return run.memory(run.end) / run.record["data"]


def last_peak(run):
    return run.over_live(run.at_mark("last_peak"))


def end_mib(run):
    return run.memory(run.end) / MIB


def percent_kept_after_10_s(run):
    """Of what the load added and then freed altogether, what is still held."""
    index = run.after_load(10)
    if index is None:
        return None
    start, peak = run.memory(run.start), run.memory(run.at_mark("peak"))
    return 100 * (run.memory(index) - start) / (peak - start)


def kib_per_parked_thread(run):
    index = run.after_load(1)
    if index is None:
        return None
    return (run.memory(index) - run.memory(run.start)) / 1024 / PARKED_THREADS


# Over the load


def mean_over_mean(run):
    """Johnstone–Wilson #1: mean memory ÷ mean live bytes; time is counted in bytes moved."""
    live = run.sum_over_load(lambda index: run["live"][index])
    return run.sum_over_load(run.memory) / live


def at_most_memory(run):
    """Johnstone–Wilson #3: most memory ÷ the bytes that were live at that moment.

    That is the first moment within 1 % of the most: memory that never goes back still creeps up by
    some pages while live bytes fall, and the last of such moments says nothing.
    """
    enough = 0.99 * max(map(run.memory, run.load()))
    return run.over_live(next(index for index in run.load() if run.memory(index) >= enough))


def most_over_most(run):
    """Johnstone–Wilson #4: most memory ÷ most live bytes."""
    return max(map(run.memory, run.load())) / run["live"][run.peak()]


def percent_internal(run):
    """Usable bytes beyond those asked for, of these, at the peak."""
    usable, live = run["usable"][run.peak()], run["live"][run.peak()]
    return 100 * (usable - live) / live if usable else None


def percent_metadata(run):
    """Metadata as the allocator tells it, of the live bytes, at the peak."""
    told = run["metadata"][run.peak()]
    return 100 * told / run["live"][run.peak()] if told else None
