#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Samples of live objects: who holds what keeps sparse slabs, against the truth.

    sites.py TOOL LIBRARY KNOWN_SITES
"""

import os
import shutil
import subprocess
import sys
import tempfile
import time

from subject import Tool, run_tests, slot_bytes, subject

TOOL, LIBRARY, KNOWN_SITES = map(os.path.abspath, sys.argv[1:])
tool = Tool(TOOL)


def by_function(sites, function):
    found = [s for s in sites if any(f["function"] == function for f in s["stack"])]
    return {name: sum(s[name] for s in found) for name in ("objects", "bytes", "pinned", "samples")}


def dense(kib):
    """Settings for one sample in so many KiB, whatever that costs."""
    return f"sample_kib:{kib},sample_percent:0"


def near(seen, truth, samples):
    """Within 10 %, or what four standard deviations of so many samples leave open."""
    allowed = max(0.1, 4 / max(samples, 1) ** 0.5)
    return abs(seen - truth) <= truth * allowed


def truth_of_sites():
    """each site's live objects, bytes and pinned bytes are right, those of freed objects none"""
    for kib in (8, 64):
        with subject([KNOWN_SITES], library=LIBRARY, conf=dense(kib)) as one:
            said = tool.json("sites", one.pid, expect=0)
            report = tool.json("report", one.pid)
            text = tool.run("sites", one.pid).stdout
        assert said["mean_bytes"] == said["effective_mean_bytes"] == kib * 1024 and said["taken"] > 0
        assert f"one in {kib}." in text and "sample_percent" not in text
        assert said["lost"] < said["taken"] / 100, said["lost"]
        sites = said["sites"]
        for function, count, size in (("dense", 60_000, 500), ("sparse", 30_000, 200), ("large", 100, 300_000)):
            seen = by_function(sites, function)
            slot = slot_bytes(size) if size < 32768 else -(-size // 4096) * 4096
            assert near(seen["objects"], count, seen["samples"]), (kib, function, seen)
            assert near(seen["bytes"], count * slot, seen["samples"]), (kib, function, seen)
        assert by_function(sites, "gone")["samples"] == 0
        # What is free in slabs is there because of sparse(); 8 KiB leave it no more than 10 % off.
        (c,) = [c for c in report["classes"] if c["slot_bytes"] == slot_bytes(200)]
        truth = c["active"] - c["live"] * c["slot_bytes"]
        sparse = by_function(sites, "sparse")
        assert near(sparse["pinned"], truth, sparse["samples"] if kib > 8 else 10_000), (kib, sparse, truth)
        assert any(f["function"] == "sparse" for f in sites[0]["stack"])


def thinned():
    """samples that come too fast are thinned; it is said, and what they stand for stays right"""
    with subject([KNOWN_SITES], library=LIBRARY, conf="sample_kib:1") as one:
        said = tool.json("sites", one.pid, expect=0)
        text = tool.run("sites", one.pid).stdout
        asked = tool.json("report", one.pid)["requested"]
    assert said["mean_bytes"] == 1024 and said["effective_mean_bytes"] > 4096, said["effective_mean_bytes"]
    assert "one in 1.00 KiB would have taken too long: see sample_percent" in text, text[:300]
    for function, count in (("dense", 60_000), ("sparse", 30_000), ("large", 100)):
        seen = by_function(said["sites"], function)
        assert near(seen["objects"], count, seen["samples"]), (function, seen)
    truth = 60_000 * 500 + 30_000 * 200 + 100 * 300_000
    assert abs(asked["estimate"] - truth) < 4 * asked["deviation"] + 100_000, asked


def requested_is_estimated():
    """with samples, what the program asked for is known to a percent; without, between two bounds"""
    truth = 60_000 * 500 + 30_000 * 200 + 100 * 300_000
    others = 100_000  # of the C library, and the list of large objects
    with subject([KNOWN_SITES], library=LIBRARY, conf=dense(16)) as one:
        asked = tool.json("report", one.pid)["requested"]
        text = tool.run("report", one.pid).stdout
    seen = asked["estimate"]
    allowed = max(4 * asked["deviation"], truth / 100) + others
    assert abs(seen - truth) < allowed < truth / 20, (asked, truth)
    assert "by samples, ±" in text
    with subject([KNOWN_SITES], library=LIBRARY) as one:
        asked = tool.json("report", one.pid)["requested"]
        assert "requested ≥" in tool.run("report", one.pid).stdout
    assert asked["estimate"] is None
    assert asked["least"] <= truth + others and truth <= asked["most"] < truth * 1.1, (asked, truth)


def forms():
    """folded stacks and the profile for pprof have the same samples"""
    with subject([KNOWN_SITES], library=LIBRARY, conf=dense(16)) as one:
        said = tool.json("sites", one.pid)
        folded = tool.run("sites", "--folded", one.pid).stdout.splitlines()
        profile = tool.run("sites", "--pprof", one.pid).stdout
        text = tool.run("sites", one.pid).stdout
    sparse = by_function(said["sites"], "sparse")
    (line,) = [line for line in folded if ";sparse" in line]
    assert abs(int(line.split()[-1]) - sparse["pinned"]) < 2
    total = sum(s["objects"] for s in said["sites"])
    assert profile.startswith(f"heap profile: {total:.0f}: ") and "@ heap_v2/1\n" in profile
    assert "MAPPED_LIBRARIES:" in profile and "libashlar.so" in profile
    assert "sparse (" in text and "pins" in text


def pprof_reads_it():
    """google-pprof finds the same functions with the same numbers of objects and bytes"""
    pprof = shutil.which("google-pprof")
    if pprof is None:
        print("no google-pprof here: not compared")
        return
    with subject([KNOWN_SITES], library=LIBRARY, conf=dense(16)) as one:
        sites = tool.json("sites", one.pid)["sites"]
        profile = tool.run("sites", "--pprof", one.pid).stdout
    with tempfile.NamedTemporaryFile("w") as file:
        file.write(profile)
        file.flush()
        for option, what, unit in (("--inuse_objects", "objects", 1), ("--inuse_space", "bytes", 1 << 20)):
            said = subprocess.run([pprof, "--text", option, KNOWN_SITES, file.name], text=True,
                                  capture_output=True, timeout=60, check=True).stdout
            for function in ("dense", "sparse", "large"):
                (line,) = [line for line in said.splitlines() if line.endswith(f" {function}")]
                wanted = by_function(sites, function)[what]
                assert abs(float(line.split()[0]) * unit - wanted) <= max(unit * 0.06, 2), (line, wanted)


def says_that_there_are_none():
    """without the option there is a sentence that says how to set it"""
    with subject([KNOWN_SITES], library=LIBRARY) as one:
        assert "sample_kib:512" in tool.run("sites", one.pid, expect=2).stderr


def sampled_programs_work():
    """programs run as ever when many of their objects are sampled, threads and forks too"""
    script = """
import threading, os, queue
q = queue.Queue()
def make():
    for i in range(3000): q.put([bytes(j % 3000) for j in range(i % 100)])
def drop():
    for i in range(3000): q.get()
ts = [threading.Thread(target=f) for f in (make, drop, make, drop)]
[t.start() for t in ts]; [t.join() for t in ts]
pid = os.fork()
x = [bytes(i % 5000) for i in range(20000)]; del x[::2]
if pid == 0: os._exit(0 if sum(map(len, x)) > 0 else 1)
assert os.waitpid(pid, 0)[1] == 0
print(sum(map(len, x)))
"""
    outputs = set()
    for conf in ("", "sample_kib:1", dense(1), dense(1) + ",magazine_kib:16,purge_ms:20"):
        done = subprocess.run(
            [sys.executable, "-c", script], capture_output=True, text=True, timeout=60,
            env={**os.environ, "LD_PRELOAD": LIBRARY, "PYTHONMALLOC": "malloc", "ASHLAR_CONF": conf},
        )
        assert done.returncode == 0, (conf, done.stderr)
        outputs.add(done.stdout)
    assert len(outputs) == 1, outputs


def reads_while_it_works():
    """sites of a program that allocates and frees all the time are sound"""
    busy = subprocess.Popen(
        [sys.executable, "-c", "while True: x = [bytes(i % 700) for i in range(50000)]"],
        env={**os.environ, "LD_PRELOAD": LIBRARY, "PYTHONMALLOC": "malloc", "ASHLAR_CONF": dense(4)},
    )
    try:
        time.sleep(1)
        for _ in range(5):
            said = tool.json("sites", busy.pid, expect=0)
            assert all(s["pinned"] >= 0 and s["objects"] > 0 for s in said["sites"])
    finally:
        busy.kill()
        busy.wait()


sys.exit(
    run_tests((truth_of_sites, thinned, requested_is_estimated, forms, pprof_reads_it, says_that_there_are_none, sampled_programs_work, reads_while_it_works)) != 0
)
