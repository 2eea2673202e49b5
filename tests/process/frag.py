#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""bench/frag: the workloads do what they say, in small, and the numbers of the tables are right.

    frag.py ASHLAR-FRAG LIBRARY
"""

import json
import os
import subprocess
import sys
import tempfile

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.insert(1, os.path.join(ROOT, "bench", "frag"))

import measures  # noqa: E402
import tables  # noqa: E402

MIB = 1 << 20
SCALE = 0.02
# Live bytes at the end, and the least at the peak, both at full scale and in MiB.
WORKLOADS = {
    "empty": (0, 0),
    "survivors": (102.4, 1024),
    "survivors_95": (12.8, 256),
    "size_shift": (51.2, 160),
    "server": (51.2, 500),
    "doubling": (128, 120),
    "large": (51.2, 1024),
    "large_churn": (38.4, 600),
    "peak_trough": (51.2, 500),
    "thread_churn": (51.2, 160),
    "remote_free": (12.8, 128),
    "idle": (0, 512),
    "parked": (0, 0),
}
PACKERS = ["first_fit", "by_size"]
COLUMNS = ["time_s", "moved", "live", "usable", "pss", "rss", "huge", "tables", "active", "metadata",
           "mark"]
failures = []


def check(holds, what):
    if not holds:
        failures.append(what)


def run(binary, library, *arguments):
    with tempfile.NamedTemporaryFile(suffix=".json") as file:
        done = subprocess.run(
            [binary, *arguments, f"--scale={SCALE}", f"--json={file.name}"],
            env={**os.environ, "LD_PRELOAD": library}, capture_output=True, text=True, timeout=60)
        if done.returncode != 0:
            check(False, f"{arguments}: exit code {done.returncode}, {done.stderr!r}")
            return None
        return measures.Run(json.load(file))


def check_workload(name, run, library):
    end_mib, peak_mib = (SCALE * mib for mib in WORKLOADS[name])
    live = run["live"]
    check(os.path.basename(library) in run.record["malloc"], f"{name}: another malloc")
    tolerance = 1 if name.startswith("large") else 0.05  # of so few large blocks, one may be all that stays
    check(abs(live[run.end] / MIB - end_mib) <= tolerance * end_mib,
          f"{name}: {live[run.end] / MIB} MiB live at the end, expected about {end_mib}")
    check(max(live) / MIB >= 0.97 * peak_mib, f"{name}: a peak of {max(live) / MIB} MiB live")
    check(list(run["time_s"]) == sorted(run["time_s"]), f"{name}: time runs backwards")
    check(list(run["moved"]) == sorted(run["moved"]), f"{name}: bytes moved run backwards")
    for index in range(run.end + 1):
        check(run["live"][index] <= run["usable"][index], f"{name}: less usable than live")
        check(run["tables"][index] + run["live"][index] <= run["pss"][index] <= run["rss"][index],
              f"{name}: sample {index}: PSS is not between live bytes and tables, and RSS")
    check(all(run["active"][run.start : run.load_end]), f"{name}: active bytes not told")
    check(not any(run["active"][run.load_end :]), f"{name}: asked while idle")


    placed = run.record["pages_with_objects"]
    check(live[run.end] <= placed <= run.memory(run.end), f"{name}: {placed} bytes of pages with objects")


def check_packer(name, packer, run):
    """What it adds up step by step is what the objects' addresses say, and never less than is live."""
    held = [run.memory(index) for index in range(run.end + 1)]
    check(held[run.end] == run.record["pages_with_objects"],
          f"{name}, {packer}: {held[run.end]} bytes held, {run.record['pages_with_objects']} with objects")
    check(all(memory >= live for memory, live in zip(held, run["live"])),
          f"{name}, {packer}: it holds less than is live")


def check_placement(binary, library):
    """Each packer is better at what it is there for."""
    held = {packer: {name: measures.end(run(binary, library, name, "--idle=0", f"--packer={packer}"))
                     for name in ("survivors", "size_shift")} for packer in PACKERS}
    check(held["by_size"]["survivors"] < held["first_fit"]["survivors"], f"survivors: {held}")
    check(2 * held["first_fit"]["size_shift"] < held["by_size"]["size_shift"], f"size_shift: {held}")


def check_silence(run):
    """Nothing is allocated from the first sample to the last of a program that does nothing."""
    check(run.memory(run.end) - run.memory(run.start) <= 256 * 1024,
          "empty: sampling itself takes memory")


def check_measures():
    """A run of five samples, worked by hand: 100 bytes live at most, a table of 10 bytes aside."""
    rows = [
        # moved, live, usable, pss, metadata, mark
        (0, 0, 0, 30, 0, "start"),
        (100, 100, 110, 150, 5, "last_peak"),
        (150, 50, 55, 210, 5, ""),
        (190, 10, 11, 211, 5, "load_end"),
        (190, 10, 11, 60, 0, ""),
    ]
    samples = [[number, moved, live, usable, pss, pss, 0, 10, 0, metadata, mark]
               for number, (moved, live, usable, pss, metadata, mark) in enumerate(rows)]
    run = measures.Run({"columns": COLUMNS, "samples": samples, "data": 25,
                        "pages_with_objects": 40})
    expected = [
        (measures.end, 50 / 10),
        (measures.over_data, 50 / 25),
        (measures.last_peak, 140 / 100),
        (measures.end_mib, 50 / MIB),
        # Trapezia over the bytes moved: (20+140)/2·100 + (140+200)/2·50 + (200+201)/2·40 of memory,
        # 50·100 + 75·50 + 30·40 live.
        (measures.mean_over_mean, (8000 + 8500 + 8020) / (5000 + 3750 + 1200)),
        (measures.at_most_memory, 200 / 50),  # not 201 / 10, which is within 1 %
        (measures.most_over_most, 201 / 100),
        (measures.placed, 40 / 10),
        (measures.percent_internal, 10),
        (measures.percent_metadata, 5),
        (measures.percent_kept_after_10_s, None),  # one second of silence is too short
        (measures.kib_per_parked_thread, (50 - 20) / 1024 / measures.PARKED_THREADS),
    ]
    for measure, number in expected:
        seen = measure(run)
        right = seen is None if number is None else seen is not None and abs(seen - number) < 1e-9
        check(right, f"{measure.__name__}: {seen}, expected {number}")


def check_tables():
    lines = [
        (tables.line_of("row", {"ours": 2.0, "a": 4.0, "b": 1.0}, 0.5, 1),
         ["row", "2.0*", "0.5", "b 1.0", "2.00", "4.0", "1.0"]),
        (tables.line_of("row", {"ours": 1.0, "a": 4.0, "b": None}, None, 2),
         ["row", "1.00 ", "–", "a 4.00", "0.25", "4.00", "–"]),
        (tables.line_of("row", {"ours": None, "a": None}, None, 2), ["row", "– ", "–", "–", "–", "–"]),
    ]
    for seen, expected in lines:
        check(seen == expected, f"a line of the table is {seen}, expected {expected}")
    check(tables.median_of([3, 1, 2], lambda run: run) == 2, "the median of 3, 1, 2 is not 2")
    check(tables.median_of([3, 1], lambda run: None if run == 1 else run) is None,
          "a round that does not know is passed over")


def check_arguments(binary):
    for arguments in [], ["nonsense"], ["empty", "--scale"], ["empty", "--scale=x"], \
            ["empty", "--scale=0"], ["empty", "--idle=-1"], ["empty", "--seed=1x"], ["empty", "x"], \
            ["empty", "--json=/nonsense/file", "--idle=0"], ["empty", "--packer=best"]:
        done = subprocess.run([binary, *arguments], capture_output=True, text=True, timeout=20)
        check(done.returncode in (1, 2) and done.stderr, f"{arguments}: no error")


def main():
    binary, library = sys.argv[1:]
    check_measures()
    check_tables()
    check_arguments(binary)
    for name in WORKLOADS:
        first = run(binary, library, name, "--idle=1" if name == "empty" else "--idle=0")
        if first:
            check_workload(name, first, library)
            if name == "empty":
                check_silence(first)
        for packer in PACKERS:
            packed = run(binary, library, name, "--idle=0", f"--packer={packer}")
            if packed:
                check_packer(name, packer, packed)
    check_placement(binary, library)
    one, two = (run(binary, library, "survivors_95", "--idle=0", "--seed=7") for _ in range(2))
    check(one and two and one["live"] == two["live"] and one["moved"] == two["moved"],
          "the same seed gives another load")
    for failure in failures[:20]:
        print(failure, file=sys.stderr)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
