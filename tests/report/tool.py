#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""The tool against programs whose truth is known by construction.

    tool.py TOOL LIBRARY KNOWN KNOWN_STATIC KNOWN_DLOPENED KNOWN_HEAPS
"""

import os
import shutil
import subprocess
import sys
import tempfile
import time

from subject import Tool, run_tests, slot_bytes, subject

TOOL, LIBRARY, KNOWN, KNOWN_STATIC, KNOWN_DLOPENED, KNOWN_HEAPS = map(os.path.abspath, sys.argv[1:])
tool = Tool(TOOL)

PAGE = 4096
COUNT, KEPT_OF_EVERY, LARGE = 60_000, 10, 3_000_000


def class_of(report, size):
    (found,) = [c for c in report["classes"] if c["slot_bytes"] == slot_bytes(size)]
    return found


def known(size=100, count=COUNT, every=KEPT_OF_EVERY, large=LARGE, **how):
    return subject([KNOWN, size, count, every, large], library=LIBRARY, **how)


def numbers_are_exact():
    """objects, classes, large blocks and the sums are what the program did"""
    for size in (16, 100, 700, 3000, 20000):
        count = min(COUNT, 100_000_000 // size)
        with known(size, count) as one:
            report = tool.json("report", one.pid)
        c = class_of(report, size)
        kept = -(-count // KEPT_OF_EVERY)
        assert c["live"] == kept, (size, c["live"], kept)
        table = -(-(count + 1) * 8 // PAGE) * PAGE
        large = -(-LARGE // PAGE) * PAGE + table
        assert report["large_bytes"] == large, (report["large_bytes"], large)
        others = sum(o["live"] * o["slot_bytes"] for o in report["classes"] if o is not c)
        assert others < 20_000, others
        heap = report["heap"]
        assert heap["allocated"] == kept * slot_bytes(size) + large + others
        assert heap["active"] == sum(o["active"] for o in report["classes"]) + large
        assert heap["active"] == sum(heap[n] for n in ("allocated", "magazines", "pending", "gaps"))
        assert sum(c["deciles"]) == c["slabs"]
        assert heap["resident"] == (
            heap["active"] - heap["untouched"] + heap["dirty"] + heap["metadata"]
        )


def resident_is_measured():
    """resident is within 1 % of what the kernel says of the mappings"""
    with known(large=0) as one:
        report = tool.json("report", one.pid)
        seen, ours = 0, False
        with open(f"/proc/{one.pid}/smaps") as smaps:
            for line in smaps:
                word = line.split()[0]
                if "-" in word and not word.endswith(":"):
                    ours = 0x2000_0000_0000 <= int(word.split("-")[0], 16) < 0x4000_0000_0000
                elif ours and word == "Rss:":
                    seen += int(line.split()[1]) * 1024
    assert abs(report["heap"]["resident"] - seen) <= seen * 0.01, (report["heap"]["resident"], seen)


def program_heaps_are_told_apart():
    """heaps that the program made have lines of their own, and are no lanes"""
    with tempfile.NamedTemporaryFile("r") as truth:
        with subject([KNOWN_HEAPS, truth.name]) as one:
            report = tool.json("report", one.pid)
            text = tool.run("report", one.pid).stdout
            exported = tool.run("export", "--prometheus", one.pid).stdout
        made = [tuple(map(int, line.split())) for line in truth]
    names = ("objects", "allocated", "active")
    expected = {n: dict(zip(names, held)) for n, held in enumerate(made, 1) if held[2] != 0}
    assert len(made) == 4 and len(expected) == 3, made
    seen = {heap["number"]: {n: heap[n] for n in names} for heap in report["program_heaps"]}
    assert seen == expected, (seen, expected)
    assert report["lanes"] == 1, report["lanes"]
    active = sum(heap["active"] for heap in expected.values())
    assert "ashlar_program_heaps_active_bytes{" in exported
    (line,) = [x for x in exported.splitlines() if x.startswith("ashlar_program_heaps_active_bytes")]
    assert float(line.split()[-1]) == active, (line, active)
    for heap in expected.values():
        assert any(str(heap["objects"]) in line.split() for line in text.splitlines()), text


def found_everywhere():
    """the heap is found in a program that is linked, stripped, or opens the library late"""
    with tempfile.TemporaryDirectory() as directory:
        stripped = os.path.join(directory, "stripped")
        shutil.copy(KNOWN_STATIC, stripped)
        subprocess.run(["strip", stripped], check=True)
        for program in (KNOWN_STATIC, stripped):
            with subject([program, 100, 1000, 1, 0]) as one:
                assert class_of(tool.json("report", one.pid), 100)["live"] >= 1000
    with subject([KNOWN_DLOPENED, LIBRARY]) as one:
        assert class_of(tool.json("report", one.pid), 100)["live"] == 10_000


def found_in_deleted_file():
    """the heap is found when the library's file is gone"""
    with tempfile.TemporaryDirectory() as directory:
        copy = os.path.join(directory, "libashlar.so.0")
        shutil.copy(LIBRARY, copy)
        with subject([KNOWN, 100, 1000, 1, 0], library=copy) as one:
            os.remove(copy)
            assert class_of(tool.json("report", one.pid), 100)["live"] >= 1000


def errors_are_sentences():
    """what cannot be read is an error with a sentence, and exit code 2"""
    for target, words in (
        ("999999999", "there is none"),
        ("/nowhere", "neither the id of a process nor a file"),
        ("-1", "neither"),
        ("", "neither"),
        ("/etc/passwd", "not a core file"),
        ("/etc", "not a regular file"),
        (str(os.getpid()), f"process {os.getpid()}: it does not run on Ashlar"),
    ):
        for verb in ("report", "doctor", "map", "top", "sites", "trim"):
            done = tool.run(verb, "--", target, expect=2)
            assert words in done.stderr and done.stderr.startswith("ashlar: "), done.stderr
            assert done.stdout == ""
    for verb in (["report"], ["map"], ["top"], ["sites"], ["trim"], ["export", "--json"], ["shm", "stat"], ["shm", "rm"]):
        assert "shm:x: there is no such arena; `ashlar shm ls`" in tool.run(*verb, "shm:x", expect=2).stderr, verb
    for words, complaint in (
        (["report"], "TARGET is required"),
        (["nonsense", "1"], '"nonsense": no such verb'),
        (["report", "--nonsense", "1"], "--nonsense"),
        (["serve", "nonsense"], '"nonsense": not the id'),
    ):
        said = tool.run(*words, expect=2).stderr
        assert complaint in said and said.startswith("ashlar: "), said
    assert tool.run("--version", expect=0).stdout.startswith("ashlar ")


def unwritten_output_is_an_error():
    """output that a full disk or a closed descriptor does not take is exit code 2, and says why"""
    with known() as one:
        for verb in (["report"], ["doctor"], ["map"], ["report", "--json"]):
            for where, why in ((">/dev/full", "No space left"), (">&-", "Bad file descriptor")):
                words = [TOOL, *verb, str(one.pid)]
                done = subprocess.run(
                    ["sh", "-c", f'exec "$0" "$@" {where}', *words], stderr=subprocess.PIPE, text=True
                )
                assert done.returncode == 2 and why in done.stderr, (verb, where, done)
        said = tool.run("report", one.pid, "--html", "/nowhere/page.html", expect=2).stderr
        assert "/nowhere/page.html: cannot be written: No such file" in said, said


def heap_that_nobody_uses():
    """a process that has the library but another malloc before it is not praised"""
    with subject([KNOWN, 100, 1000, 1, 0], library=f"libc.so.6:{LIBRARY}") as one:
        for verb in ("report", "doctor"):
            said = tool.run(verb, one.pid, expect=0).stdout
            assert "never taken memory from Ashlar" in said and "complain" not in said, said


def exit_codes():
    """a dense heap is fine, a sparse one is a finding with what it would save"""
    with known(every=1) as one:
        assert "Nothing to complain about" in tool.run("report", one.pid, expect=0).stdout
        assert tool.json("doctor", one.pid, expect=0)["findings"] == []
    with known() as one:
        (finding,) = tool.json("doctor", one.pid, expect=1)["findings"]
        assert finding["name"] == "sparse_slabs"
        slots = 65536 // slot_bytes(100)
        slabs = -(-COUNT // slots)
        packed = -(-(COUNT // KEPT_OF_EVERY) // slots)
        truth = (slabs - packed) * 65536
        assert abs(finding["saving"] - truth) < truth * 0.02, (finding["saving"], truth)
        tool.run("report", one.pid, expect=1)


def read_while_it_works():
    """a heap that changes all the time gives sound numbers"""
    busy = subprocess.Popen(
        [sys.executable, "-c", "while True: x = [bytes(i % 700) for i in range(50000)]"],
        env={**os.environ, "LD_PRELOAD": LIBRARY, "PYTHONMALLOC": "malloc"},
    )
    try:
        time.sleep(1)
        for _ in range(20):
            report = tool.json("report", busy.pid)
            heap = report["heap"]
            assert 0 < heap["allocated"] <= heap["active"] <= heap["mapped"], heap
            assert report["dropped"] < 100, report["dropped"]
    finally:
        busy.kill()
        busy.wait()


sys.exit(
    run_tests(
        (
            numbers_are_exact,
            resident_is_measured,
            program_heaps_are_told_apart,
            found_everywhere,
            found_in_deleted_file,
            errors_are_sentences,
            unwritten_output_is_an_error,
            heap_that_nobody_uses,
            exit_codes,
            read_while_it_works,
        )
    )
    != 0
)
