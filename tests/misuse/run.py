#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Runs a program that commits a crime against malloc, and expects it to be told so.

    run.py LIBRARY PROGRAM REGEX [ARGUMENT...]

The program must end by SIGABRT with exactly one line on stderr, all of which matches REGEX; an
empty REGEX expects none. ADDR in REGEX stands for the address that the program wrote on stdout before its crime.
"""

import os
import re
import resource
import signal
import subprocess
import sys


def complaint(done, regex):
    """What is wrong with how the program ended, or nothing."""
    lines = done.stderr.splitlines()
    expected = regex.replace("ADDR", re.escape(done.stdout.strip()))
    if not done.stdout.strip():
        return "expected the program to name its victim on stdout, seen nothing"
    if done.returncode != -signal.SIGABRT:
        return f"expected SIGABRT, seen exit code {done.returncode}; stderr: {done.stderr!r}"
    if len(lines) != (1 if regex else 0):
        return f"expected {'one line' if regex else 'nothing'} on stderr, seen {done.stderr!r}"
    if lines and not re.fullmatch(expected, lines[0]):
        return f"expected a line like {expected!r}, seen {lines[0]!r}"
    return None


def main():
    if len(sys.argv) < 4 or not os.path.exists(sys.argv[1]):
        sys.exit("usage: run.py LIBRARY PROGRAM REGEX [ARGUMENT...]")
    library, program, regex, *arguments = sys.argv[1:]
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    done = subprocess.run(
        [program, *arguments],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=50,
        env={**os.environ, "LD_PRELOAD": os.path.abspath(library)},
        check=False,
    )
    wrong = complaint(done, regex)
    if wrong:
        sys.exit(f"{os.path.basename(program)}: {wrong}")
    print(f"{os.path.basename(program)}: {done.stderr.strip() or 'aborted in silence'}")


main()
