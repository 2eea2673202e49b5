#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""What it costs to look at a heap from outside: the tool's time, and the target's.

    look.py [--mib 10240] [--rounds 15] [--seconds 1] [BUILD]

1. The wall time of `ashlar report` and `map` of a heap of so many MiB (medians of the rounds).
2. How much less a program gets done in a second of its CPU time while it is scraped each second
   (`export --prometheus`): pairs of runs, one of the two scraped, each first in turn; the median of
   the ratios.
"""

import argparse
import os
import statistics
import subprocess
import threading
import time

HERE = os.path.dirname(os.path.abspath(__file__))


class Subject:
    """bench/look under the library."""

    def __init__(self, build, mib):
        self.process = subprocess.Popen(
            [f"{build}/bench/look", str(mib)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            env={**os.environ, "LD_PRELOAD": f"{build}/libashlar.so"})
        assert self.process.stdout.readline() == "ready\n"

    def work(self, seconds):
        """How many objects it replaces in so many seconds of CPU time."""
        self.process.stdin.write(f"{round(seconds * 1000)}\n")
        self.process.stdin.flush()
        return int(self.process.stdout.readline())

    def end(self):
        self.process.stdin.close()
        self.process.wait(30)


class Scraper:
    """Scrapes a process each second until the block ends."""

    def __init__(self, tool, pid):
        self._command, self._ended = [tool, "export", "--prometheus", str(pid)], threading.Event()
        self._thread = threading.Thread(target=self._run)

    def _run(self):
        while not self._ended.is_set():
            subprocess.run(self._command, stdout=subprocess.DEVNULL, check=True)
            self._ended.wait(1)

    def __enter__(self):
        self._thread.start()

    def __exit__(self, *_):
        self._ended.set()
        self._thread.join()


def seconds_of(command):
    begin = time.monotonic()
    done = subprocess.run(command, stdout=subprocess.DEVNULL)
    assert done.returncode in (0, 1), command
    return time.monotonic() - begin


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--mib", type=int, default=10240)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--seconds", type=float, default=1)
    parser.add_argument("build", nargs="?", default=os.path.join(HERE, "..", "build", "release"))
    options = parser.parse_args()
    tool = f"{options.build}/ashlar"

    large = Subject(options.build, options.mib)
    for verb in ("report", "map"):
        times = [seconds_of([tool, verb, str(large.process.pid)]) for _ in range(options.rounds)]
        print(f"{verb} of {options.mib} MiB: {statistics.median(times):.2f} s ({min(times):.2f} to {max(times):.2f})")
    large.end()

    small = Subject(options.build, 16)
    small.work(1)
    ratios = []
    for i in range(options.rounds):
        rates = {}
        for scraped in (i % 2 == 0, i % 2 != 0):
            if scraped:
                with Scraper(tool, small.process.pid):
                    rates[scraped] = small.work(options.seconds)
            else:
                rates[scraped] = small.work(options.seconds)
        ratios.append(rates[True] / rates[False])
    small.end()
    print(f"throughput while scraped each second: {statistics.median(ratios):.3f} of that without "
          f"({min(ratios):.3f} to {max(ratios):.3f})")


main()
