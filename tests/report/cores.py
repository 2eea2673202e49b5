#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""The tool and core files: whole ones, cut ones, and ones that lie.

    cores.py TOOL LIBRARY KNOWN

Exit code 77: this kernel does not put core files where they can be found.
"""

import os
import pathlib
import random
import resource
import signal
import subprocess
import sys
import tempfile

from subject import Tool, run_tests, slot_bytes

TOOL, LIBRARY, KNOWN = map(os.path.abspath, sys.argv[1:])
tool = Tool(TOOL)
COUNT, KEPT_OF_EVERY, LARGE = 20_000, 10, 1_000_000
ROUNDS = 60


def make_core(directory):
    """Dies of SIGABRT when its heap is known. Returns the core file, and what the tool said of the
    process while it lived."""

    def allow_cores():
        hard = resource.getrlimit(resource.RLIMIT_CORE)[1]
        resource.setrlimit(resource.RLIMIT_CORE, (hard, hard))

    process = subprocess.Popen(
        [KNOWN, "100", str(COUNT), str(KEPT_OF_EVERY), str(LARGE)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=directory,
        env={**os.environ, "LD_PRELOAD": LIBRARY},
        preexec_fn=allow_cores,
    )
    assert process.stdout.readline() == "ready\n"
    alive = tool.json("report", process.pid)
    process.send_signal(signal.SIGABRT)
    process.wait(30)
    found = list(pathlib.Path(directory).glob("core*"))
    return (found[0] if found else None), alive


directory = tempfile.TemporaryDirectory()
core, alive = make_core(directory.name)
if core is None:
    print("no core file: see /proc/sys/kernel/core_pattern and ulimit -c")
    sys.exit(77)


def same_as_alive():
    """a core file has the numbers that the process had"""
    report = tool.json("report", core)
    assert report["source"] == "core" and report["program"] == "known"
    assert report["pid"] == alive["pid"]
    assert report["classes"] == alive["classes"]
    for name in ("allocated", "magazines", "pending", "gaps", "active", "free", "mapped"):
        assert report["heap"][name] == alive["heap"][name], name
    # Here a page counts when it is not all zero. The program wrote to all of its own.
    resident = alive["heap"]["resident"]
    assert abs(report["heap"]["resident"] - resident) < resident * 0.02
    (c,) = [c for c in report["classes"] if c["slot_bytes"] == slot_bytes(100)]
    assert c["live"] == COUNT // KEPT_OF_EVERY


def damaged(change):
    """Runs the tool on a copy of the core that `change` has spoilt; says what it said."""
    content = bytearray(core.read_bytes())
    change(content)
    path = pathlib.Path(directory.name) / "damaged"
    path.write_bytes(content)
    done = subprocess.run(
        [TOOL, "report", "--json", str(path)], capture_output=True, text=True, timeout=30
    )
    assert done.returncode in (0, 1, 2), (done.returncode, done.stderr)
    if done.returncode == 2:
        assert done.stderr.startswith("ashlar: "), done.stderr
    return done.returncode


def cut_short():
    """a core file that was cut short is an error or a part, never a crash"""
    size = core.stat().st_size
    codes = [damaged(lambda c, n=n: c.__delitem__(slice(n, None))) for n in
             (0, 3, 64, 500, 4096, size // 10, size // 2, size - 4096)]
    assert codes[:3] == [2, 2, 2], codes


def spoilt():
    """a core file with spoilt bytes is an error or sound numbers, never a crash or a hang"""
    rng = random.Random(5)

    def spoil(begin, end, changes):
        def change(content):
            for _ in range(changes):
                content[rng.randrange(begin, min(end, len(content)))] = rng.randrange(256)

        return change

    size = core.stat().st_size
    for _ in range(ROUNDS):
        damaged(spoil(0, 64, 2))
        damaged(spoil(64, 8192, 20))
        damaged(spoil(0, size, 2000))


sys.exit(run_tests((same_as_alive, cut_short, spoilt)) != 0)
