"""Runs programs under several allocators, in turn, and prints how they compare.

    script/bench [OPTIONS] [NAME[=PATH.so] ...]     measure
    script/bench [OPTIONS] --from FILE...           show what --json wrote, of one or more runs
    script/bench --compare OLD NEW                  two runs, of two commits, side by side

NAME=PATH.so is an allocator to preload; glibc, jemalloc and mimalloc are known by name. Without any,
the peers are those three, as far as they are installed. Ours is build/release/libashlar.so unless
ashlar=PATH.so says otherwise. How to read the tables: bench/README.md.
"""

import argparse
import os
import re
import sys
import tempfile

import allocators
import drift
import jobs
import micro
import plot
import programs
import results
import tables
from errors import Refused

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BUILD = os.path.join(ROOT, "build", "release")


def parse(arguments):
    parser = argparse.ArgumentParser(
        prog="script/bench", usage=__doc__.split("\n\n")[1].strip(),
        description=__doc__.split("\n\n")[2], formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help="of all jobs (default: 5)")
    parser.add_argument("--filter", default="", help="only jobs whose name has a match for this")
    parser.add_argument("--list", action="store_true", help="print the names of the jobs and leave")
    parser.add_argument("--loop", action="store_true", help="also what the micro rows alone cost")
    parser.add_argument("--json", help="write all rounds, unrounded, to this file")
    parser.add_argument("--plot", help="draw the ratios into this SVG file")
    parser.add_argument("--from", dest="files", nargs="+", metavar="FILE")
    parser.add_argument("--compare", nargs=2, metavar=("OLD", "NEW"))
    parser.add_argument("allocators", nargs="*")
    options = parser.parse_args(arguments)
    if options.rounds < 1:
        raise Refused("--rounds must be at least 1")
    try:
        re.compile(options.filter)
    except re.error as error:
        raise Refused(f"--filter: {error}") from None
    for path in filter(None, (options.json, options.plot)):
        if not os.path.isdir(os.path.dirname(os.path.abspath(path))):
            raise Refused(f"no such directory: {os.path.dirname(path)}")
    return options


def measure(options):
    """The results of a run of all jobs that the filter leaves."""
    with tempfile.TemporaryDirectory(prefix="ashlar-bench.") as directory:
        every = micro.all_jobs(os.path.join(BUILD, "bench"))
        every += programs.all_jobs(os.path.join(BUILD, "bench"), directory)
        wanted = [job for job in every if re.search(options.filter, job.name)]
        if options.list:
            print("\n".join(job.name for job in wanted))
            return None
        if not wanted:
            raise Refused(f"no job matches '{options.filter}'; --list names them")
        chosen = allocators.choose(options.allocators, os.path.join(BUILD, "libashlar.so"))
        if options.loop:
            chosen[allocators.LOOP] = allocators.Allocator(allocators.LOOP, None)
        about = results.describe(chosen, options.rounds, ROOT)
        numbers, failures = jobs.run(wanted, chosen, options.rounds)
        return results.Results(about, numbers, failures)


def main():
    options = parse(sys.argv[1:])
    if options.compare:
        old, new = map(results.read, options.compare)
        print("\n".join(drift.lines(old, new)))
        return 0
    if options.files:
        outcome = results.merge([results.read(path) for path in options.files])
    else:
        outcome = measure(options)
        if outcome is None:
            return 0
    if options.json:
        results.write(outcome, options.json)
    if options.plot:
        plot.write(outcome, options.plot)
    print("\n".join(tables.lines(outcome)))
    for what, why in outcome.failures.items():
        print(f"script/bench: {what} failed: {why}", file=sys.stderr)
    return 1 if outcome.failures else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except Refused as refused:
        print(f"script/bench: {refused}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)
