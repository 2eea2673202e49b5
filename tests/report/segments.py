#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Shared arenas whose truth is known, and files that only look like arenas.

    segments.py TOOL KNOWN_SEGMENT
"""

import contextlib
import os
import pathlib
import random
import shutil
import subprocess
import sys
import tempfile

from subject import SECONDS, Tool, run_tests, slot_bytes, subject

TOOL, KNOWN = map(os.path.abspath, sys.argv[1:])
tool = Tool(TOOL)
directory = tempfile.TemporaryDirectory()
HERE = pathlib.Path(directory.name)
SHM = pathlib.Path("/dev/shm")
NAME = f"ashlar-test-{os.getpid()}"

PAGE, CHUNK = 4096, 2 << 20
SIZE, COUNT, EVERY, LARGE = 100, 60_000, 10, 3_000_000
KEPT = COUNT // EVERY
FIXED_SIZE, SCOPED = 4, 1


@contextlib.contextmanager
def arena(where=NAME, flags=0):
    path = pathlib.Path(where) if "/" in str(where) else SHM / where
    try:
        with subject([KNOWN, where, flags, SIZE, COUNT, EVERY, LARGE]) as one:
            yield one
    finally:
        path.unlink(missing_ok=True)


def taken(path):
    """What the file takes, as its file system counts."""
    return os.stat(path).st_blocks * 512


def small_class(report):
    (found,) = [c for c in report["classes"] if c["slot_bytes"] == slot_bytes(SIZE)]
    return found


def numbers_are_exact():
    """objects, classes, the large block and who holds them are what the program did"""
    with arena() as one:
        report = tool.json("report", f"shm:{NAME}")
        stat = tool.json("shm", "stat", NAME, expect=0)
    c = small_class(report)
    heap = report["heap"]
    large = -(-LARGE // PAGE) * PAGE
    others = sum(o["live"] * o["slot_bytes"] for o in report["classes"] if o is not c)
    assert c["live"] == KEPT and others < 1024, (c, others)
    assert (report["large_blocks"], report["large_bytes"]) == (1, large)
    assert heap["allocated"] == KEPT * slot_bytes(SIZE) + large + others == stat["allocated"]
    assert heap["active"] == stat["active"] and heap["mapped"] == stat["mapped"]
    assert heap["active"] == sum(heap[n] for n in ("allocated", "magazines", "pending", "gaps"))
    (holder,) = report["holders"]
    assert holder["pid"] == one.pid and holder["alive"] and holder["lanes"] == 1
    assert holder["held"] == heap["active"], (holder, heap)
    assert stat["attached"] == [holder] and list(stat["roots"]) == ["large"]


def memory_is_measured():
    """resident is what the file system has allocated, and looking adds nothing to it"""
    for flags in (0, FIXED_SIZE):
        with arena(flags=flags):
            before = taken(SHM / NAME)
            report = tool.json("report", f"shm:{NAME}")
            tool.run("map", f"shm:{NAME}", expect=0)
            tool.run("shm", "stat", NAME, expect=0)
            assert report["heap"]["resident"] == taken(SHM / NAME) == before, (flags, report["heap"])
    path = HERE / "arena"
    with arena(path):
        heap = tool.json("report", path)["heap"]
        assert heap["allocated"] > KEPT * SIZE + LARGE
        assert 0 < heap["resident"] <= taken(path), (heap, taken(path))


def others_frees_are_pending():
    """what another process freed waits for its owner, and the dead are told from the living"""
    with arena() as one:
        one.tell("visit")
        report = tool.json("report", f"shm:{NAME}")
        assert small_class(report)["pending"] == KEPT // 2, small_class(report)
        alive = sorted(h["alive"] for h in report["holders"])
        assert alive == [False, True], report["holders"]
        assert "dead, not recovered" in tool.run("report", f"shm:{NAME}").stdout
        assert tool.json("shm", "recover", NAME, expect=0)["recovered"] == 1
        (left,) = tool.json("shm", "stat", NAME, expect=0)["attached"]
        assert left["pid"] == one.pid


def findings_come_true():
    """the doctor names a dead process, and recovering a scoped one saves what it said"""
    with arena(flags=SCOPED) as one:
        one.process.kill()
        one.process.wait(10)
        before = tool.json("doctor", f"shm:{NAME}", expect=1)["findings"]
        (dead,) = [f for f in before if f["name"] == "dead_processes"]
        was = tool.json("report", f"shm:{NAME}")["heap"]
        assert dead["saving"] == was["active"], (dead, was)
        tool.run("shm", "recover", f"shm:{NAME}", expect=0)
        heap = tool.json("report", f"shm:{NAME}")["heap"]
        assert heap["active"] == 0, heap
        assert tool.json("shm", "check", NAME, expect=0)["sound"]
        # A chunk stays as a reserve.
        saved = was["resident"] - heap["resident"]
        assert abs(saved - dead["saving"]) < dead["saving"] * 0.2 + CHUNK, (saved, dead)


def the_others_verbs_work():
    """map, top, diff and export look at an arena; sites and trim say why not"""
    name = f"shm:/{NAME}"
    with arena():
        cells = tool.json("map", name)
        mapped = tool.json("report", name)["heap"]["mapped"]
        assert len(cells["cells"]) * cells["pages_per_cell"] * PAGE == mapped
        assert tool.run("top", name, "--count", 2, "--every", "20ms").stdout.count("mapped") == 2
        assert "allocated" in tool.run("diff", name, name, expect=0).stdout
        prometheus = tool.run("export", "--prometheus", name, expect=0).stdout
        assert f'ashlar_allocated_bytes{{pid="0",program="/{NAME}"}} ' in prometheus
        page = HERE / "page.html"
        tool.run("report", name, "--html", page)
        assert NAME in page.read_text()
        for verb in ("sites", "trim"):
            assert "shared memory" in tool.run(verb, name, expect=2).stderr


def names_come_and_go():
    """ls has an arena until rm took its name; rm touches nothing else unless it is forced"""
    with arena():
        assert NAME in [a["name"] for a in tool.json("shm", "ls", expect=0)["arenas"]]
        assert f" {NAME}\n" in tool.run("shm", "ls", expect=0).stdout
        nasty = SHM / f"{NAME}\x1b[2J"
        nasty.hardlink_to(SHM / NAME)
        try:
            assert f" {NAME}?[2J\n" in tool.run("shm", "ls", expect=0).stdout
        finally:
            nasty.unlink()
        assert "1 process keeps it" in tool.run("shm", "rm", NAME, expect=0).stdout
        assert NAME not in tool.run("shm", "ls", expect=0).stdout
        assert "no such arena" in tool.run("shm", "rm", NAME, expect=2).stderr
    other = SHM / NAME
    other.write_text("somebody else's")
    try:
        assert "no arena" in tool.run("shm", "rm", NAME, expect=2).stderr
        assert other.exists()
        tool.run("shm", "rm", NAME, "--force", expect=0)
        assert not other.exists()
    finally:
        other.unlink(missing_ok=True)


def errors_are_clear():
    """what is no arena, or not all of one, gives a sentence and exit code 2"""
    with arena() as one:
        one.tell("close")
        shutil.copyfile(SHM / NAME, HERE / "whole")
    whole = HERE / "whole"
    size = whole.stat().st_size
    assert tool.json("shm", "check", whole, expect=0)["sound"]
    cut = HERE / "cut"
    for bytes_left in (8, 60, PAGE, size // 2, size - 1):
        shutil.copyfile(whole, cut)
        os.truncate(cut, bytes_left)
        assert tool.run("report", cut, expect=2).stderr.startswith(f"ashlar: {cut}: the arena ")
        for verb in ("stat", "check", "recover", "rm"):
            assert "no arena" in tool.run("shm", verb, cut, expect=2).stderr
    changed = HERE / "changed"
    for at, complaint in ((0, "core file"), (8, "was changed"), (16, "was changed")):
        shutil.copyfile(whole, changed)
        with changed.open("r+b") as file:
            file.seek(at)
            file.write(b"\xff")
        assert complaint in tool.run("report", changed, expect=2).stderr, at
    for verb, target in (("report", "shm:"), ("report", "shm:a/b"), ("report", "shm:none-such")):
        assert tool.run(verb, target, expect=2).stderr.startswith("ashlar: ")
    os.mkfifo(HERE / "pipe")
    for what in (HERE / "pipe", HERE):
        assert tool.run("report", what, expect=2).stderr
        assert tool.run("shm", "stat", what, expect=2).stderr
    assert tool.run("shm", expect=2).stderr


def garbage_is_survived():
    """whatever bytes are wrong in an arena, every verb ends by itself with 0, 1 or 2"""
    with arena() as one:
        one.tell("visit")
        shutil.copyfile(SHM / NAME, HERE / "good")
    spoiled = HERE / "spoiled"
    # All that changes before the first chunk's data, the header alone left.
    end = 1 << 20
    for seed in range(24):
        dice = random.Random(seed)
        shutil.copyfile(HERE / "good", spoiled)
        with spoiled.open("r+b") as file:
            for _ in range(dice.choice((1, 30, 3000))):
                file.seek(dice.randrange(PAGE, end))
                file.write(dice.randbytes(dice.choice((1, 8, 64))))
        for verb in (("report",), ("map",), ("doctor",), ("shm", "stat"), ("shm", "check"),
                     ("shm", "recover")):
            done = subprocess.run([TOOL, *verb, str(spoiled)], capture_output=True, timeout=SECONDS)
            assert done.returncode in (0, 1, 2), (seed, verb, done.returncode, done.stderr)


sys.exit(
    run_tests(
        (
            numbers_are_exact,
            memory_is_measured,
            others_frees_are_pending,
            findings_come_true,
            the_others_verbs_work,
            names_come_and_go,
            errors_are_clear,
            garbage_is_survived,
        )
    )
    != 0
)
