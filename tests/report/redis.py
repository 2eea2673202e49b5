#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Debian's Redis is built for jemalloc, and asks it about the heap. On Ashlar it must be told the
truth about ours.

    redis.py TOOL LIBRARY

Exit code 77: no Redis here.
"""

import os
import pathlib
import random
import re
import shutil
import subprocess
import sys
import tempfile
import time

from subject import Tool, run_tests

TOOL, LIBRARY = map(os.path.abspath, sys.argv[1:])
tool = Tool(TOOL)
SERVER, CLIENT = shutil.which("redis-server"), shutil.which("redis-cli")
if SERVER is None or CLIENT is None:
    print("no Redis")
    sys.exit(77)

KEYS = 120_000


class Redis:
    def __init__(self, directory):
        self.socket = pathlib.Path(directory) / "socket"
        self.process = subprocess.Popen(
            [SERVER, "--port", "0", "--unixsocket", str(self.socket), "--save", "", "--dir",
             directory],
            stdout=subprocess.DEVNULL,
            env={**os.environ, "LD_PRELOAD": LIBRARY},
        )
        deadline = time.monotonic() + 20
        while not self.socket.exists():
            assert time.monotonic() < deadline and self.process.poll() is None
            time.sleep(0.02)

    def say(self, *words, given=None):
        done = subprocess.run(
            [CLIENT, "-s", str(self.socket), *words],
            input=given, capture_output=True, text=True, timeout=60, check=True,
        )
        return done.stdout

    def info(self):
        time.sleep(0.5)  # Redis asks its allocator ten times a second
        lines = self.say("INFO", "memory").splitlines()
        return dict(line.split(":", 1) for line in lines if ":" in line)


def told_the_truth():
    """INFO memory, MEMORY DOCTOR, MEMORY PURGE and MEMORY MALLOC-STATS speak of our heap"""
    rng = random.Random(7)
    with tempfile.TemporaryDirectory() as directory:
        redis = Redis(directory)
        try:
            redis.say("--pipe", given="".join(
                f"SET key:{i} {'x' * rng.randrange(50, 900)}\r\n" for i in range(KEYS)))
            dense = redis.info()
            compare(dense, tool.json("report", redis.process.pid)["heap"])
            assert float(dense["allocator_frag_ratio"]) < 1.2, dense["allocator_frag_ratio"]
            # used_memory is what Redis itself counts; the allocator holds that and a little more.
            used, allocated = int(dense["used_memory"]), int(dense["allocator_allocated"])
            assert used <= allocated * 1.01 and allocated < used * 1.1, (used, allocated)
            assert "fragmentation" not in redis.say("MEMORY", "DOCTOR")

            redis.say("--pipe", given="".join(f"DEL key:{i}\r\n" for i in range(KEYS) if i % 4))
            sparse = redis.info()
            compare(sparse, tool.json("report", redis.process.pid)["heap"])
            assert float(sparse["allocator_frag_ratio"]) > 1.4, sparse["allocator_frag_ratio"]
            doctor = redis.say("MEMORY", "DOCTOR")
            assert "High allocator fragmentation" in doctor, doctor

            assert redis.say("MEMORY", "PURGE") == "OK\n"
            heap = tool.json("report", redis.process.pid)["heap"]
            assert heap["dirty"] < 2 << 20, heap["dirty"]
            stats = redis.say("MEMORY", "MALLOC-STATS")
            assert "memory of redis-server" in stats and "resident / allocated" in stats, stats
            assert re.search(r"\d+ B +\d+ +\d+ +\d+ %", stats)
        finally:
            redis.process.terminate()
            redis.process.wait(20)


def compare(info, heap):
    for ours, theirs in (
        ("allocated", "allocator_allocated"), ("active", "allocator_active"),
        ("resident", "allocator_resident"),
    ):
        seen, truth = int(info[theirs]), heap[ours]
        assert abs(seen - truth) <= truth * 0.02 + 400_000, (theirs, seen, truth)


sys.exit(run_tests((told_the_truth,)) != 0)
