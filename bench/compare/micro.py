"""Jobs of small rows: Google Benchmark's, single calls, and instructions."""

import json
import os
import re
import subprocess

from allocators import LOOP
from errors import Failed, Refused
from jobs import Job, run_process

# Google Benchmark appends to a row's name how it is run.
HOW_IT_RUNS = re.compile(r"/(min_time:[0-9.]+|iterations:\d+|process_time|manual_time)")


class MicroJob(Job):
    """One row of ashlar-bench, in a process of its own."""

    def __init__(self, binary, full_name):
        self._row = HOW_IT_RUNS.sub("", full_name)
        super().__init__("micro/" + self._row)
        self._command = [binary, f"--benchmark_filter=^{full_name}$", "--benchmark_format=json"]

    def measure(self, allocator):
        output = json.loads(run_process(self._command, allocator))
        return {("micro", self._row): output["benchmarks"][0]["per_op"]}


class ListJob(Job):
    """A program that prints a line "ROW NUMBER" for each of its rows."""

    def __init__(self, group, command, scale):
        super().__init__(group)
        self._command, self._scale = command, scale

    def measure(self, allocator):
        if allocator.name == LOOP:
            return {}
        lines = [line.split() for line in run_process(self._command, allocator).splitlines()]
        if not lines or any(len(words) != 2 for words in lines):
            raise Failed("it prints no rows")
        return {(self.name, row): float(number) * self._scale for row, number in lines}


def all_jobs(directory):
    jobs = [ListJob("latency", [os.path.join(directory, "latency")], 1e-9),
            ListJob("instructions", [os.path.join(directory, "hit-path")], 1)]
    binary = os.path.join(directory, "ashlar-bench")
    if not os.access(binary, os.X_OK):
        raise Refused(f"no {binary}: it takes libbenchmark-dev to build it")
    listed = subprocess.run([binary, "--benchmark_list_tests"], capture_output=True, text=True,
                            check=False).stdout.split()
    return [MicroJob(binary, full_name) for full_name in listed] + jobs
