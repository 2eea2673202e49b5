#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Whether Ashlar answers under jemalloc's names as jemalloc does.

    jemalloc_answers.py LIBRARY PROGRAM

PROGRAM prints what it is told; it runs on LIBRARY and on Debian's libjemalloc.so.2, and has to print
the same. Skipped where there is no jemalloc.
"""

import ctypes.util
import difflib
import os
import subprocess
import sys

SKIPPED = 77


def answers(program, library):
    return subprocess.run(
        [program],
        env=dict(os.environ, LD_PRELOAD=library),
        check=True,
        capture_output=True,
        text=True,
        timeout=60,
    ).stdout.splitlines()


def main():
    library, program = sys.argv[1:]
    theirs = ctypes.util.find_library("jemalloc")
    if theirs is None:
        print("SKIP: no libjemalloc.so.2; script/bootstrap test installs it")
        sys.exit(SKIPPED)
    wanted, seen = answers(program, theirs), answers(program, library)
    different = list(difflib.unified_diff(wanted, seen, "jemalloc", "ashlar", lineterm="", n=0))
    print("\n".join(different))
    print(f"{len(wanted)} answers")
    sys.exit(1 if different or not wanted else 0)


main()
