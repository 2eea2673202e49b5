#!/usr/bin/env python3
"""Runs ashlar-bench under several allocators and prints how they compare.

    script/bench [--rounds N] [--filter REGEX] [--loop] [--json FILE] [NAME[=PATH.so] ...]

NAME=PATH.so is an allocator to preload; glibc, jemalloc and mimalloc are known by name. Without any,
the peers are those three, as far as they are installed. Ours is build/release/libashlar.so unless
ashlar=PATH.so says otherwise.

Each row runs in a process of its own, under one allocator after the other, before the next row: what
disturbs the machine for some seconds disturbs all of them. Who goes first rotates. Every process
checks where its malloc comes from. How to read the table: bench/README.md.
"""

import argparse
import datetime
import glob
import hashlib
import json
import math
import os
import platform
import re
import statistics
import subprocess
import sys
import time

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
OURS = "ashlar"
LOOP = "loop"  # not an allocator: the rows with functions that do nothing
C_LIBRARY = "glibc"  # no preload
DEBIAN_PEERS = {
    "jemalloc": "/usr/lib/*-linux-gnu*/libjemalloc.so.2",
    "mimalloc": "/usr/lib/*-linux-gnu*/libmimalloc.so.2*",
}
ROW_TIMEOUT_S = 120
WIDTH = 120
NOISY = 0.3  # (max - min) / median from which a cell is marked
# Google Benchmark appends to a row's name how it is run.
HOW_IT_RUNS = re.compile(r"/(min_time:[0-9.]+|iterations:\d+|process_time|manual_time)")


def die(message):
    print(f"script/bench: {message}", file=sys.stderr)
    sys.exit(2)


# Allocators


def installed_peer(name):
    return min(glob.glob(DEBIAN_PEERS[name]), default=None)


def allocators(arguments):
    """Name → path of the library to preload, None for the C library; ours first."""
    chosen = {OURS: os.path.join(ROOT, "build", "release", "libashlar.so")}
    peers = {}
    for argument in arguments:
        name, equals, path = argument.partition("=")
        if equals:
            peers[name] = path
        elif name == C_LIBRARY:
            peers[name] = None
        elif name in DEBIAN_PEERS:
            peers[name] = installed_peer(name) or die(f"{name} is not installed")
        elif name != OURS:
            die(f"no allocator '{name}'; known by name: {C_LIBRARY} {' '.join(DEBIAN_PEERS)}")
    if not set(peers) - {OURS}:
        found = {name: installed_peer(name) for name in DEBIAN_PEERS}
        peers = {C_LIBRARY: None, **{n: p for n, p in found.items() if p}, **peers}
    chosen.update(peers)

    for name, path in chosen.items():
        if path is None:
            continue
        chosen[name] = path = os.path.abspath(path)
        if not os.path.isfile(path):
            die(f"{name}: no such file: {path}")
        if re.search(r"[\s:]", path):
            die(f"{name}: the loader splits LD_PRELOAD at spaces and colons: {path}")
    return chosen


def output_of(*command):
    try:
        done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    except OSError:
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def version_of(path):
    if path is None:
        return {"version": os.confstr("CS_GNU_LIBC_VERSION")}
    real = os.path.realpath(path)
    with open(real, "rb") as file:
        digest = hashlib.sha256(file.read()).hexdigest()
    package = output_of("dpkg-query", "-S", real).partition(": ")[0]
    version = package and output_of("dpkg-query", "-W", "-f", "${Package} ${Version}", package)
    return {"path": path, "file": os.path.basename(real), "sha256": digest, "version": version}


# Measuring


def child_environment(name, path):
    environment = {k: v for k, v in os.environ.items() if k != "LD_PRELOAD"}
    # The name as the loader sees it: a link is not resolved.
    environment["ASHLAR_BENCH_EXPECT"] = os.path.basename(path) if path else "libc.so"
    if path:
        environment["LD_PRELOAD"] = path
    if name == LOOP:
        environment["ASHLAR_BENCH_LOOP"] = "1"
    return environment


def rows_of(binary, pattern):
    """Row → its full name in the binary, in the binary's order."""
    names = output_of(binary, "--benchmark_list_tests").splitlines()
    if not names:
        die(f"{binary} lists no rows")
    rows = {HOW_IT_RUNS.sub("", name): name for name in names}
    rows = {row: name for row, name in rows.items() if re.search(pattern, row)}
    return rows or die(f"no row matches '{pattern}'")


def measure_ns(binary, full_name, environment):
    """Nanoseconds per operation, and None; or None, and what went wrong."""
    command = [binary, f"--benchmark_filter=^{full_name}$", "--benchmark_format=json"]
    try:
        done = subprocess.run(command, env=environment, capture_output=True, text=True,
                              timeout=ROW_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        return None, f"not done after {ROW_TIMEOUT_S} s"
    if done.returncode == 2:  # the wrong malloc: no number would mean anything
        die(done.stderr.strip().splitlines()[-1])
    if done.returncode != 0:
        said = (done.stderr.strip().splitlines() or [""])[-1]
        how = f"signal {-done.returncode}" if done.returncode < 0 else f"exit {done.returncode}"
        return None, f"{how} {said}".strip()
    return json.loads(done.stdout)["benchmarks"][0]["per_op"] * 1e9, None


def run(binary, rows, chosen, rounds):
    """Row → name → one number a round, None where it failed; and the failures, told once each."""
    numbers = {row: {name: [] for name in chosen} for row in rows}
    failures = {}
    environments = {name: child_environment(name, path) for name, path in chosen.items()}
    names = list(chosen)
    start_s = time.monotonic()
    for round_number in range(rounds):
        for row_number, (row, full_name) in enumerate(rows.items()):
            progress(f"round {round_number + 1}/{rounds}  row {row_number + 1}/{len(rows)}  "
                     f"{time.monotonic() - start_s:.0f} s  {row}")
            first = (round_number + row_number) % len(names)
            for name in names[first:] + names[:first]:
                ns, failure = measure_ns(binary, full_name, environments[name])
                numbers[row][name].append(ns)
                if failure:
                    failures.setdefault((row, name), failure)
    progress("")
    return numbers, failures


def progress(text):
    if sys.stderr.isatty():
        print(f"\r\033[K{text}", end="", file=sys.stderr, flush=True)
    elif "row 1/" in text:
        print(text, file=sys.stderr, flush=True)


# The table


class Cell:
    """What the rounds of one row under one allocator say."""

    def __init__(self, numbers):
        self.failed = not numbers or None in numbers
        if not self.failed:
            self.median = statistics.median(numbers)
            self.least, self.most = min(numbers), max(numbers)

    def __str__(self):
        if self.failed:
            return "failed "
        noisy = self.most - self.least > NOISY * self.median
        return show_ns(self.median) + ("~" if noisy else " ")

    def range(self):
        return "" if self.failed else f"({show_ns(self.least)}–{show_ns(self.most)})"

    def ratio_to(self, peer):
        return None if self.failed or peer.failed else self.median / peer.median


def show_ns(ns):
    for unit, size in (("", 1), ("µs", 1e3), ("ms", 1e6)):
        if ns < 999.5 * size or unit == "ms":
            return f"{ns / size:#.3g}".rstrip(".") + unit


def show_ratio(ratio):
    return "–" if ratio is None else f"{ratio:.2f}"


def geometric_mean(ratios):
    known = [ratio for ratio in ratios if ratio is not None]
    return math.exp(statistics.fmean(map(math.log, known))) if known else None


def table(numbers, names):
    peers = [name for name in names if name not in (OURS, LOOP)]
    rivals = [name for name in peers if name != C_LIBRARY]
    head = ["ns per operation", OURS + " ", "(min–max)"]
    for peer in peers:
        head += [peer + " ", "ratio"]
    head += ["best"] if len(rivals) > 1 else []
    head += [LOOP + " "] if LOOP in names else []

    lines, ratios = [head], []
    for row, by_name in numbers.items():
        cells = {name: Cell(by_name[name]) for name in names}
        ours = cells[OURS]
        to_peers = [ours.ratio_to(cells[peer]) for peer in peers]
        to_rivals = [r for p, r in zip(peers, to_peers) if p in rivals and r is not None]
        best = [max(to_rivals, default=None)] if len(rivals) > 1 else []
        ratios.append(to_peers + best)
        line = [row, str(ours), ours.range()]
        for peer, ratio in zip(peers, to_peers):
            line += [str(cells[peer]), show_ratio(ratio)]
        line += map(show_ratio, best)
        line += [str(cells[LOOP])] if LOOP in names else []
        lines.append(line)

    columns = list(zip(*ratios))
    for label, sum_up in (
        ("geometric mean", lambda column: show_ratio(geometric_mean(column))),
        ("rows below 1", lambda column: str(sum(r is not None and r < 1 for r in column))),
    ):
        sums = [sum_up(column) for column in columns]
        line = [label, "", ""]
        for one in sums[: len(peers)]:
            line += ["", one]
        lines.append(line + sums[len(peers):] + ([""] if LOOP in names else []))
    return lines


def print_table(lines):
    gap = "  "

    def widths_of(lines):
        return [max(map(len, column)) for column in zip(*lines)]

    if len(gap.join("-" * width for width in widths_of(lines))) > WIDTH:
        lines = [line[:2] + line[3:] for line in lines]  # many peers: the range goes first
    widths = widths_of(lines)
    rule = "-" * len(gap.join("-" * width for width in widths))
    for number, (row, *cells) in enumerate(lines):
        if number in (1, len(lines) - 2):
            print(rule)
        cells = [cell.rjust(width) for cell, width in zip(cells, widths[1:])]
        print(gap.join([row.ljust(widths[0]), *cells]).rstrip())


def cpu_model():
    with open("/proc/cpuinfo", encoding="utf-8") as file:
        models = re.findall(r"^model name\s*:\s*(.*)$", file.read(), re.MULTILINE)
    return models[0] if models else platform.machine()


def main():
    parser = argparse.ArgumentParser(
        prog="script/bench", usage=__doc__.split("\n\n")[1].strip(),
        description=__doc__.split("\n\n")[2], formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help="of all rows (default: 5)")
    parser.add_argument("--filter", default="", help="only rows whose name has a match for this")
    parser.add_argument("--loop", action="store_true", help="show also what the rows alone cost")
    parser.add_argument("--json", help="write all rounds, unrounded, to this file")
    parser.add_argument("--binary", help=argparse.SUPPRESS,
                        default=os.path.join(ROOT, "build", "release", "bench", "ashlar-bench"))
    parser.add_argument("allocators", nargs="*")
    options = parser.parse_args()
    if options.rounds < 1:
        die("--rounds must be at least 1")
    try:
        re.compile(options.filter)
    except re.error as error:
        die(f"--filter: {error}")
    binary = os.path.abspath(options.binary)
    if not os.access(binary, os.X_OK):
        die(f"no {binary}: build first (libbenchmark-dev is needed)")

    chosen = allocators(options.allocators)
    if options.loop:
        chosen[LOOP] = None
    about = {
        "date": datetime.datetime.now().astimezone().isoformat(timespec="seconds"),
        "kernel": platform.release(),
        "cpu": cpu_model(),
        "cores": len(os.sched_getaffinity(0)),
        "load_before": os.getloadavg(),
        "commit": output_of("git", "describe", "--always", "--dirty"),
        "allocators": {n: version_of(p) for n, p in chosen.items() if n != LOOP},
    }
    rows = rows_of(binary, options.filter)
    numbers, failures = run(binary, rows, chosen, options.rounds)
    about["load_after"] = os.getloadavg()

    if options.json:
        with open(options.json, "w", encoding="utf-8") as file:
            json.dump({**about, "unit": "ns per operation, one number a round", "rows": numbers,
                       "failures": {f"{r} {n}": why for (r, n), why in failures.items()}},
                      file, indent=1)
            file.write("\n")
    print(f"{about['cpu']}, {about['cores']} cores, Linux {about['kernel']}; median of "
          f"{options.rounds} round(s); ratio: {OURS} ÷ peer, below 1 {OURS} is faster")
    print_table(table(numbers, list(chosen)))
    for (row, name), why in failures.items():
        print(f"script/bench: {row} failed under {name}: {why}", file=sys.stderr)
    return 1 if failures else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
