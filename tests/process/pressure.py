#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""A program in a control group of its own is told when its memory gets short there.

    pressure.py PROGRAM

Skipped where no memory group can be made: it takes root, and a tree that may be written to.
"""

import os
import subprocess
import sys

LIMIT_MIB = 64
HELD_MIB = 60
SKIP = 77

# Where groups are, and what the file with a group's limit is called.
TREES = [
    ("/sys/fs/cgroup/memory", "memory.limit_in_bytes"),
    ("/sys/fs/cgroup", "memory.max"),
]


def make_group():
    """The directory of a new group with a limit, or None."""
    for tree, limit in TREES:
        group = f"{tree}/ashlar-test-{os.getpid()}"
        try:
            os.mkdir(group)
        except OSError:
            continue
        try:
            with open(f"{group}/{limit}", "w") as file:
                file.write(str(LIMIT_MIB << 20))
            return group
        except OSError:
            os.rmdir(group)
    return None


def main():
    if len(sys.argv) != 2:
        sys.exit("usage: pressure.py PROGRAM")
    group = make_group()
    if group is None:
        print("pressure: no memory group can be made here")
        sys.exit(SKIP)

    def join():
        with open(f"{group}/cgroup.procs", "w") as file:
            file.write(str(os.getpid()))

    try:
        run = subprocess.run(
            [sys.argv[1], str(HELD_MIB)],
            capture_output=True,
            text=True,
            timeout=60,
            preexec_fn=join,
        )
    finally:
        os.rmdir(group)
    print(run.stdout, run.stderr)
    expected = "short 1\nenough 1\n"
    if run.returncode != 0 or run.stdout != expected:
        sys.exit(f"pressure: expected {expected!r}, seen {run.stdout!r} and {run.returncode}")


main()
