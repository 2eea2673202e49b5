#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""The verbs of the tool, in a pseudo-terminal and without one.

    verbs.py TOOL LIBRARY KNOWN
"""

import csv
import io
import json
import os
import pathlib
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import tempfile
import termios
import time
import urllib.error
import urllib.request

import fcntl

from subject import Tool, run_tests, slot_bytes, subject

TOOL, LIBRARY, KNOWN = map(os.path.abspath, sys.argv[1:])
tool = Tool(TOOL)
directory = tempfile.TemporaryDirectory()
HERE = pathlib.Path(directory.name)
COUNT, KEPT_OF_EVERY, LARGE = 60_000, 10, 3_000_000


def known(**how):
    return subject([KNOWN, 100, COUNT, KEPT_OF_EVERY, LARGE], library=LIBRARY, **how)


def in_terminal(*arguments, keys="", columns=90, lines=40, env=None):
    """Runs the tool in a pseudo-terminal of that size; returns its exit code and what it wrote."""
    pid, fd = pty.fork()
    if pid == 0:
        os.environ.pop("NO_COLOR", None)
        os.environ.update({"TERM": "xterm", **(env or {})})
        time.sleep(0.1)  # until the terminal has its size
        os.execv(TOOL, [TOOL, *map(str, arguments)])
    fcntl.ioctl(fd, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
    written = b""
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        if not select.select([fd], [], [], 0.5)[0]:
            continue
        try:
            chunk = os.read(fd, 65536)
        except OSError:
            break
        if not chunk:
            break
        written += chunk
        if keys and b"resident" in written:
            os.write(fd, keys.encode())
            keys = ""
    os.close(fd)
    status = os.waitpid(pid, 0)[1]
    return os.waitstatus_to_exitcode(status), written.decode()


def plain(text):
    return re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", text)


def colors_in_a_terminal_only():
    """colors in a terminal, none with NO_COLOR, in a dumb one or in a pipe, the same words in all"""
    with known() as one:
        code, colored = in_terminal("report", one.pid)
        _, sober = in_terminal("report", one.pid, env={"NO_COLOR": "1"})
        _, dumb = in_terminal("report", one.pid, env={"TERM": "dumb"})
        _, frames = in_terminal("top", one.pid, "--count", 2, "--every", "20ms", env={"TERM": "dumb"})
        piped = tool.run("report", one.pid).stdout
    assert code == 1
    assert "\x1b[" in colored and "\x1b[" not in sober and "\x1b[" not in piped
    assert "\x1b[" not in dumb + frames and frames.count("mapped") == 2
    # What is shared with other processes changes with them.
    without_pss = [re.sub(r"PSS \S+ \S+", "", text) for text in (plain(colored), sober)]
    assert without_pss[0].split() == without_pss[1].split()
    assert re.search(r"^ +112 B +\d+ +6000 +10 %", piped, re.M), piped


def report_fits():
    """the report fits into a terminal of 80 columns, the findings into narrower ones"""
    with known() as one:
        for verb, columns in (("doctor", 70), ("report", 80), ("report", 120)):
            _, text = in_terminal(verb, one.pid, columns=columns)
            lines = plain(text).splitlines()
            indented = [line for line in lines if line.startswith("  ")]
            assert indented and max(map(len, indented)) <= columns, (verb, columns)
    with subject([KNOWN, 100, 1000, 1, 0], library=LIBRARY) as dense:
        code, text = in_terminal("report", dense.pid, columns=80)
        assert code == 0 and max(map(len, plain(text).splitlines())) <= 80, text


def map_fits():
    """the map fits into the terminal, colored and not, and shows what is what"""
    with known() as one:
        for columns, lines in ((80, 24), (200, 60), (41, 10)):
            for env in ({}, {"NO_COLOR": "1"}):
                code, text = in_terminal("map", one.pid, columns=columns, lines=lines, env=env)
                rows = plain(text).splitlines()
                assert code == 0 and len(rows) <= max(lines, 13), (lines, len(rows))
                cells = [row for row in rows if re.match(r" +[0-9a-f]{11,}  ", row)]
                assert cells and all(len(row) <= columns for row in cells)
        text = tool.run("map", one.pid).stdout
        assert "+" in text and "█" in text and "░" in text
        cells = tool.json("map", one.pid)
        mapped = tool.json("report", one.pid)["heap"]["mapped"]
    assert len(cells["cells"]) * cells["pages_per_cell"] * 4096 == mapped


def frames_of(text):
    """The lines of each frame that top has drawn."""
    return [plain(frame).replace("\r", "").split("\n") for frame in text.split("\x1b[H")[1:]]


def top_lives():
    """top redraws in the terminal's other screen, leaves it at q, and counts frames in a pipe"""
    with known() as one:
        code, text = in_terminal("top", one.pid, "--every", "100ms", keys="q")
        assert code == 0
        assert text.startswith("\x1b[?1049h") and text.rstrip().endswith("\x1b[?1049l")
        assert "\x1b[?25h" in text
        lines = tool.run("top", one.pid, "--json", "--count", 3, "--every", "20ms").stdout
        assert [json.loads(line)["pid"] for line in lines.splitlines()] == [one.pid] * 3
        assert tool.run("top", one.pid, "--count", 2, "--every", "20ms").stdout.count("mapped") == 2


def top_fits():
    """a frame of top fits into the terminal, whatever its size, and begins with who it is about"""
    with known() as one:
        for columns, lines in ((80, 24), (200, 50), (60, 15), (20, 5)):
            for env in ({}, {"NO_COLOR": "1"}):
                code, text = in_terminal("top", one.pid, "--count", 2, "--every", "20ms",
                                         columns=columns, lines=lines, env=env)
                assert code == 0 and ("\x1b[1m" in text) == (not env)
                frames = frames_of(text)
                assert len(frames) == 2, (columns, lines, text)
                for frame in frames:
                    assert len(frame) <= lines and max(map(len, frame)) <= columns, (columns, lines, frame)
                    assert frame[0].startswith("known (process")
                if lines >= 24:
                    assert any(re.match(r" +\d+ B ", line) for line in frames[0]), frames[0]


def top_follows_the_terminal():
    """a terminal that changes its size gets a frame of the new size at once"""
    with known() as one:
        pid, fd = pty.fork()
        if pid == 0:
            os.execv(TOOL, [TOOL, "top", str(one.pid), "--every", "60s"])
        written = b""

        def read_frame(wanted):
            nonlocal written
            deadline = time.monotonic() + 20
            while written.count(b"\x1b[H") < wanted and time.monotonic() < deadline:
                if select.select([fd], [], [], 0.2)[0]:
                    written += os.read(fd, 65536)
                elif wanted == 2:  # it may not have waited yet
                    fcntl.ioctl(fd, termios.TIOCSWINSZ, struct.pack("HHHH", 12, 40, 0, 0))
                    os.kill(pid, signal.SIGWINCH)

        read_frame(1)
        read_frame(2)
        os.write(fd, b"q")
        time.sleep(0.2)
        written += os.read(fd, 65536)
        os.close(fd)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    frame = frames_of(written.decode())[1]
    assert len(frame) <= 12 and max(map(len, frame)) <= 40, frame


def top_ends_with_its_process():
    """a process that ends is said to have ended"""
    with known() as one:
        top = subprocess.Popen([TOOL, "top", str(one.pid), "--every", "20ms"],
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        assert top.stdout.readline().startswith("known")
    _, complaint = top.communicate(timeout=20)
    assert top.returncode == 2 and re.search(r"it has ended|there is none", complaint), complaint


def diff_tells_the_change():
    """diff of two kept reports, or of one and the living, is what happened between"""
    with known() as one:
        before = HERE / "before.json"
        before.write_text(tool.run("report", one.pid, "--json").stdout)
        one.tell("free")
        change = tool.json("diff", before, one.pid, expect=0)
        text = tool.run("diff", before, one.pid, expect=0).stdout
    kept = COUNT // KEPT_OF_EVERY
    freed = kept * slot_bytes(100)
    assert abs(change["heap"]["allocated"] + freed) < 10_000, change["heap"]
    (c,) = [c for c in change["classes"] if c["slot_bytes"] == slot_bytes(100)]
    assert c["objects"] == -kept
    assert "-6000" in text and "allocated" in text
    broken = HERE / "broken.json"
    broken.write_text('{"schema": 1}')
    assert "not a report" in tool.run("diff", broken, broken, expect=2).stderr


def exports_agree():
    """Prometheus, CSV and JSON have the numbers of the report"""
    with known() as one:
        heap = tool.json("report", one.pid)["heap"]
        prometheus = tool.run("export", "--prometheus", one.pid, expect=0).stdout
        table = tool.run("export", "--csv", one.pid, expect=0).stdout
        kept = json.loads(tool.run("export", "--json", one.pid, expect=0).stdout)
        tool.run("export", one.pid, expect=2)
    labels = f'{{pid="{one.pid}",program="known"}}'
    assert f"ashlar_allocated_bytes{labels} {heap['allocated']}\n" in prometheus
    assert f"ashlar_resident_bytes{labels} {heap['resident']}\n" in prometheus
    assert f'slot_bytes="112"}} {COUNT // KEPT_OF_EVERY}\n' in prometheus
    for name in re.findall(r"^(ashlar_\w+)", prometheus, re.M):
        assert f"# TYPE {name} gauge" in prometheus and f"# HELP {name} " in prometheus
    rows = list(csv.DictReader(io.StringIO(table)))
    (row,) = [r for r in rows if r["metric"] == "allocated_bytes"]
    assert row["value"] == str(heap["allocated"]) and row["program"] == "known"
    assert kept["reports"][0]["heap"] == heap


def trim_is_answered():
    """trim makes a program that works give back its dirty pages, and says so when one sleeps"""
    with known(conf="purge_ms:-1") as one:
        one.tell("free")
        said = tool.json("trim", one.pid, "--wait", "100ms", expect=1)
        assert said["answered"] is False and said["maintenance_thread"] is False
        text = tool.run("trim", one.pid, "--wait", "50ms", expect=1).stdout
        assert "background:always" in text, text
        before = tool.json("report", one.pid)["heap"]
        assert before["dirty"] > 4_000_000, before
        findings = tool.json("doctor", one.pid)["findings"]
        predicted = sum(f["saving"] for f in findings if f["name"] in ("dirty_pages", "empty_pages"))
        assert predicted > 4_000_000, findings
        one.tell("churn")
        after = tool.json("report", one.pid)["heap"]
        saved = before["resident"] - after["resident"]
        assert abs(saved - predicted) < predicted * 0.2, (saved, predicted)
    with known(conf="background:always,purge_ms:100") as one:
        one.tell("free")
        said = tool.json("trim", one.pid, "--wait", "50ms")
        assert said["maintenance_thread"] is True, said
        deadline = time.monotonic() + 20
        while tool.json("report", one.pid)["heap"]["dirty"] > 1 << 20:
            assert time.monotonic() < deadline, "nothing goes back by itself"
            time.sleep(0.1)
    busy = subprocess.Popen(
        [sys.executable, "-c", "while True: x = [bytes(600) for i in range(9000)]"],
        env={**os.environ, "LD_PRELOAD": LIBRARY, "PYTHONMALLOC": "malloc"},
    )
    try:
        time.sleep(0.5)
        said = tool.json("trim", busy.pid, expect=0)
        assert said["answered"] is True
    finally:
        busy.kill()
        busy.wait()


def sparse_slabs_can_be_saved():
    """the doctor says what moving the survivors together saves, and that is what it saves"""
    with subject([KNOWN, 200, 300_000, 20, 0], library=LIBRARY) as one:
        (found,) = [f for f in tool.json("doctor", one.pid, expect=1)["findings"]
                    if f["name"] == "sparse_slabs"]
        before = tool.json("report", one.pid)["heap"]["resident"]
        one.tell("move")
        after = tool.json("report", one.pid)["heap"]["resident"]
    saved = before - after
    assert found["saving"] > 10 << 20, found
    assert abs(saved - found["saving"]) < found["saving"] * 0.2, (saved, found)


def run_keeps_the_exit_code():
    """run passes on what the program says, reads and exits with"""
    done = tool.run("run", "--", "/bin/sh", "-c", "echo out; echo err >&2; exit 7", expect=7)
    assert done.stdout == "out\n" and "err\n" in done.stderr
    assert tool.run("run", "--", "/bin/sh", "-c", "kill -KILL $$", expect=137)
    assert "nowhere" in tool.run("run", "--", "/nowhere", expect=127).stderr
    assert tool.run("run", "--every", "soon", "--", "true", expect=2).stderr
    done = tool.run("run", "--json", "--every", "20ms", "--", "/bin/sh", "-c", "sleep .2", expect=0)
    recording = json.loads(done.stdout)
    assert recording["schema"] == 1 and len(recording["moments"]) > 1
    assert "moments" not in done.stderr
    assert tool.run("run", expect=2).stderr


def run_ends_with_its_program():
    """who ends run ends the program, and gets the report all the same"""
    page = HERE / "ended.html"
    run = subprocess.Popen(
        [TOOL, "run", "--every", "50ms", "--report", page, "--", KNOWN, "100", "1000", "1", "0"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert run.stdout.readline() == "ready\n"
    time.sleep(0.3)  # it looks at the program a few times
    run.terminate()
    assert run.wait(30) == 128 + signal.SIGTERM
    assert "Over time" in page.read_text()


def serve_answers():
    """serve answers Prometheus and people, finds processes by itself, and nothing else"""
    with known() as one:
        server = subprocess.Popen(
            [TOOL, "serve", "--json", "--listen", "127.0.0.1:0"], stdout=subprocess.PIPE, text=True
        )
        try:
            where = json.loads(server.stdout.readline())
            assert where["schema"] == 1
            url = where["listening"].removesuffix("/metrics")

            def get(path):
                with urllib.request.urlopen(url + path, timeout=20) as answer:
                    return answer.read().decode()

            assert f'ashlar_allocated_bytes{{pid="{one.pid}",program="known"}} ' in get("/metrics")
            assert str(one.pid) in get("/")
            assert "<!DOCTYPE html>" in get(f"/report/{one.pid}")
            taken = url.removeprefix("http://")
            assert "cannot listen" in tool.run("serve", "--listen", taken, expect=2).stderr
            for path in ("/report/1", "/report/x", "/etc/passwd"):
                try:
                    get(path)
                except urllib.error.HTTPError as error:
                    assert error.code == 404, error
                else:
                    raise AssertionError(path)
        finally:
            server.send_signal(signal.SIGTERM)
            server.wait(10)
    for nonsense in ("nonsense", "127.0.0.1:", "127.0.0.1:80x", "127.0.0.1:65536"):
        assert "not ADDRESS:PORT" in tool.run("serve", "--listen", nonsense, expect=2).stderr
    assert "cannot listen" in tool.run("serve", "--listen", "203.0.113.1:1", expect=2).stderr


sys.exit(
    run_tests(
        (
            colors_in_a_terminal_only,
            report_fits,
            map_fits,
            top_lives,
            top_fits,
            top_follows_the_terminal,
            top_ends_with_its_process,
            diff_tells_the_change,
            exports_agree,
            trim_is_answered,
            sparse_slabs_can_be_saved,
            run_keeps_the_exit_code,
            run_ends_with_its_program,
            serve_answers,
        )
    )
    != 0
)
