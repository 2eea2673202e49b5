#!/usr/bin/python3
"""Runs workloads that leave gaps under several allocators: one table, and a picture of each.

    script/frag [--quick] [--scale F] [--seed N] [--idle SECONDS] [--rounds N] [--jobs N]
                [--filter REGEX] [--out DIR] [NAME[=PATH.so] ...]

NAME=PATH.so is an allocator to preload; glibc, jemalloc and mimalloc are known by name. Without any,
the peers are those three, as far as they are installed. Ours is build/release/libashlar.so unless
ashlar=PATH.so says otherwise.

Each workload runs under one allocator after the other before the next; who goes first rotates. What
the tables say and how the numbers come about: bench/frag/README.md.
"""

import argparse
import concurrent.futures
import itertools
import json
import os
import re
import subprocess
import sys
import tempfile

BENCH = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
ROOT = os.path.dirname(BENCH)
sys.path.insert(1, os.path.join(BENCH, "compare"))

import lru  # noqa: E402
import measures  # noqa: E402
import picture  # noqa: E402
import tables  # noqa: E402
import results  # noqa: E402
from allocators import OURS, choose  # noqa: E402
from errors import Refused  # noqa: E402

BINARY = os.path.join(ROOT, "build", "release", "bench", "frag", "ashlar-frag")
RUN_TIMEOUT_S = 300
QUICK_SCALE = 0.06
# Ways to place objects, beside the allocators; see packer.h. They need ashlar-frag and a load.
PACKERS = ["first_fit", "by_size"]
NOT_PACKED = ["empty", "parked", "redis"]

# Workload → the title of its picture.
WORKLOADS = {
    "empty": "empty: a program that does nothing",
    "survivors": "survivors: 1 GiB of 16–512 B, a random tenth kept",
    "survivors_95": "survivors_95: 256 MiB of 48–256 B, a random twentieth kept",
    "size_shift": "size_shift: 95 % freed at random, then the next size, eight times",
    "server": "server: log-normal sizes replaced at random, then shrunk to a tenth",
    "doubling": "doubling: Robson's adversary, 32 B to 64 KiB",
    "large": "large: blocks of 64 KiB–8 MiB, a random twentieth kept",
    "large_churn": "large_churn: such blocks, replaced twice over, then a random twentieth kept",
    "peak_trough": "peak_trough: three days and three quiet nights",
    "pinned": "pinned: one object of each 2 MiB of addresses kept",
    "thread_churn": "thread_churn: 192 short-lived threads, each leaves a twentieth for a while",
    "remote_free": "remote_free: one thread allocates, another frees",
    "idle": "idle: four threads free everything and sleep",
    "parked": "parked: 64 threads that did some work and sleep",
    "redis": "redis: LRU cache of 100 MiB; 240-byte values, then 492-byte values",
}


def die(message):
    print(f"script/frag: {message}", file=sys.stderr)
    sys.exit(2)


# Running


class RunError(Exception):
    pass


def run_binary(workload, options, library, *arguments):
    with tempfile.NamedTemporaryFile(prefix="ashlar-frag-", suffix=".json") as file:
        command = [BINARY, workload, f"--scale={options.scale}", f"--seed={options.seed}",
                   f"--json={file.name}", *arguments]
        environment = {k: v for k, v in os.environ.items() if k != "LD_PRELOAD"}
        if library:
            environment["LD_PRELOAD"] = library
        try:
            done = subprocess.run(command, env=environment, capture_output=True, text=True,
                                  timeout=RUN_TIMEOUT_S + options.idle)
        except subprocess.TimeoutExpired as error:
            raise RunError(f"not done after {error.timeout:.0f} s") from None
        if done.returncode != 0:
            said = (done.stderr.strip().splitlines() or [f"status {done.returncode}"])[-1]
            raise RunError(said)
        return json.load(file)


def run_program(workload, library, options):
    record = run_binary(workload, options, library, f"--idle={options.idle}")
    expected = os.path.basename(library) if library else "libc.so"
    if expected not in record["malloc"]:
        raise RunError(f"malloc comes from {record['malloc']}, not from {expected}")
    return record


def run_one(workload, name, chosen, options):
    """A record; or what went wrong, as text."""
    try:
        if name in PACKERS:
            return run_binary(workload, options, None, "--idle=0", f"--packer={name}")
        if workload == "redis":
            return lru.run(chosen[name].path, options.scale, options.idle)
        return run_program(workload, chosen[name].path, options)
    except (RunError, lru.LruError, OSError) as error:
        return str(error)


def run_all(workloads, chosen, options):
    """Workload → allocator or packer → its records, one a round; and the failures."""
    names = list(chosen)
    jobs = []
    for round_number, (number, workload) in itertools.product(
            range(options.rounds), enumerate(workloads)):
        first = (round_number + number) % len(names)
        jobs += [(workload, name) for name in names[first:] + names[:first]]
    jobs += itertools.product((w for w in workloads if w not in NOT_PACKED), PACKERS)

    records = {workload: {name: [] for name in names + PACKERS} for workload in workloads}
    failures = {}
    with concurrent.futures.ThreadPoolExecutor(options.jobs) as pool:
        outcomes = pool.map(lambda job: run_one(*job, chosen, options), jobs)
        for number, ((workload, name), result) in enumerate(zip(jobs, outcomes)):
            progress(f"{number + 1}/{len(jobs)}  {workload}  {name}")
            if isinstance(result, str):
                failures.setdefault((workload, name), result)
            else:
                records[workload][name].append(result)
    progress("")
    return records, failures


def progress(text):
    if sys.stderr.isatty():
        print(f"\r\033[K{text}", end="", file=sys.stderr, flush=True)


def transparent_huge_pages():
    with open("/sys/kernel/mm/transparent_hugepage/enabled", encoding="ascii") as file:
        return file.read().partition("[")[2].partition("]")[0]


def parse_arguments():
    parser = argparse.ArgumentParser(
        prog="script/frag", usage=__doc__.split("\n\n")[1].strip(),
        description=__doc__.split("\n\n", 2)[2], formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true",
                        help=f"as --scale {QUICK_SCALE}: no more than 64 MiB at a time")
    parser.add_argument("--scale", type=float, default=1,
                        help="of all amounts; 1, the default, has peaks of up to 1.2 GiB")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--idle", type=float, default=12, metavar="SECONDS",
                        help="of silence after the load (default: 12)")
    parser.add_argument("--rounds", type=int, default=1, help="medians are shown (default: 1)")
    parser.add_argument("--jobs", type=int, default=1,
                        help="runs at a time (default: 1); they share the PSS of code")
    parser.add_argument("--filter", default="", help="only workloads whose name has a match")
    parser.add_argument("--out", metavar="DIR", default=os.path.join(ROOT, "build", "frag"),
                        help="for frag.json and the pictures (default: build/frag)")
    parser.add_argument("allocators", nargs="*")
    options = parser.parse_args()
    if options.quick:
        options.scale = QUICK_SCALE
    if not 0.001 <= options.scale <= 16:
        die("--scale must be from 0.001 to 16")
    if options.rounds < 1 or options.jobs < 1 or options.idle < 0 or options.seed < 0:
        die("--rounds and --jobs must be at least 1, --idle and --seed not negative")
    try:
        re.compile(options.filter)
    except re.error as error:
        die(f"--filter: {error}")
    return options


def main():
    options = parse_arguments()
    if not os.access(BINARY, os.X_OK):
        die(f"no {BINARY}: build first")
    try:
        chosen = choose(options.allocators, os.path.join(ROOT, "build", "release", "libashlar.so"))
    except Refused as refused:
        die(refused)
    if taken := set(chosen) & set(PACKERS):
        die(f"{min(taken)} is the name of a packer")
    workloads = [name for name in WORKLOADS if re.search(options.filter, name)]
    if not workloads:
        die(f"no workload matches '{options.filter}'; there are: {' '.join(WORKLOADS)}")
    if "redis" in workloads and not lru.installed():
        print("script/frag: no redis-server: redis is left out", file=sys.stderr)
        workloads.remove("redis")
    about = {
        **results.describe(chosen, options.rounds, ROOT),
        "transparent_huge_pages": transparent_huge_pages(),
        "scale": options.scale,
        "seed": options.seed,
        "idle_s": options.idle,
        "jobs": options.jobs,
    }
    os.makedirs(options.out, exist_ok=True)
    records, failures = run_all(workloads, chosen, options)
    with open(os.path.join(options.out, "frag.json"), "w", encoding="utf-8") as file:
        json.dump({**about, "runs": records,
                   "failures": {f"{w} {n}": why for (w, n), why in failures.items()}}, file)

    runs = {workload: {name: list(map(measures.Run, rounds)) for name, rounds in by_name.items()}
            for workload, by_name in records.items()}
    for workload, by_name in runs.items():
        first = {name: by_name[name][0] for name in chosen if by_name[name]}
        if first:
            title = WORKLOADS[workload]
            if options.scale != 1:
                title += f"  (× {options.scale:g})"
            picture.draw(os.path.join(options.out, f"{workload}.svg"), title, first, OURS)
    print(f"{about['cpu']}, {about['cores']} cores, Linux {about['kernel']}, transparent huge pages: "
          f"{about['transparent_huge_pages']}; scale {options.scale:g}, {options.idle:g} s idle, "
          f"median of {options.rounds} round(s)\n*: the best peer holds less; "
          f"packed: the better of {' and '.join(PACKERS)}, which hold nothing but pages with objects\n")
    for title, lines in tables.tables(runs, list(chosen), PACKERS):
        tables.show(title, lines, list(chosen))
    for (workload, name), why in failures.items():
        print(f"script/frag: {workload} failed under {name}: {why}", file=sys.stderr)
    return 1 if failures else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
