#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""The HTML page in a real browser: what it shows, and that it says nothing on its console.

    page.py TOOL LIBRARY KNOWN

Exit code 77: no Chromium here.
"""

import html
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

from subject import Tool, run_tests, slot_bytes, subject

TOOL, LIBRARY, KNOWN = map(os.path.abspath, sys.argv[1:])
tool = Tool(TOOL)
BROWSER = shutil.which("chromium") or shutil.which("chromium-browser")
if BROWSER is None:
    print("no chromium")
    sys.exit(77)

directory = tempfile.TemporaryDirectory()
HERE = pathlib.Path(directory.name)
COUNT, KEPT_OF_EVERY, LARGE = 60_000, 10, 3_000_000


def browse(page, script=""):
    """Opens a page and returns its elements as text, after running `script` in it. Anything on the
    console is a failure."""
    text = page.read_text()
    probe = HERE / ("probe-" + page.name)
    probe.write_text(text.replace("</body>", f"<script>{script}</script></body>"))
    done = subprocess.run(
        [BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr",
         f"--user-data-dir={HERE / 'profile'}", "--virtual-time-budget=4000", "--dump-dom",
         probe.as_uri()],
        capture_output=True,
        text=True,
        timeout=90,
    )
    complaints = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    assert not complaints, complaints
    assert "<main>" in done.stdout, done.stderr[-400:]
    return done.stdout


def plain(markup):
    """The text of some markup."""
    return html.unescape(re.sub(r"<[^>]*>", " ", markup))


def section(dom, name):
    (body,) = re.findall(rf'<section id="{name}".*?</section>', dom, re.S)
    return body


def size(n):
    """As the page writes sizes."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if n < 1023.5:
            break
        n /= 1024
    if unit == "B":
        return f"{n} B"
    return f"{n:.{2 if n < 9.995 else 1 if n < 99.95 else 0}f} {unit}"


def numbers_of_a_process():
    """every part of the page is there, with the numbers of the report"""
    page = HERE / "page.html"
    with subject([KNOWN, 100, COUNT, KEPT_OF_EVERY, LARGE], library=LIBRARY) as one:
        tool.run("report", "--html", page, one.pid)
        report = tool.json("report", one.pid)
    dom = browse(page)
    heap = report["heap"]
    for name in ("allocated", "gaps", "active", "untouched", "metadata", "resident", "mapped"):
        assert size(heap[name]) in plain(section(dom, "waterfall")), (name, size(heap[name]))
    (c,) = [c for c in report["classes"] if c["slot_bytes"] == slot_bytes(100)]
    row = plain(section(dom, "classes"))
    assert f"{c['live']:,}" in row and f"{c['slabs']:,}" in row and size(c["free"]) in row
    assert "lie free between objects" in plain(section(dom, "verdict"))
    assert size(report["free_runs"]["longest"] * 4096) in plain(section(dom, "runs"))
    assert size(report["empty_pages"]["empty"]) in plain(section(dom, "back"))
    assert "hidden" in section(dom, "timeline").split(">")[0]
    assert "<h1 id=\"title\">known</h1>" in dom
    assert "http" not in re.sub(r"http://www.w3.org/\S+", "", page.read_text())


def heat_map_is_drawn():
    """the heat-map has the colors of the pages, and hovering tells the numbers"""
    page = HERE / "map.html"
    with subject([KNOWN, 100, COUNT, KEPT_OF_EVERY, LARGE], library=LIBRARY) as one:
        tool.run("report", "--html", page, one.pid)
        chunks = tool.json("report", one.pid)["heap"]["mapped"] >> 21
    script = """
      const canvas = document.querySelector("canvas"), pen = canvas.getContext("2d");
      const colors = new Set();
      const image = new Uint32Array(pen.getImageData(0, 0, canvas.width, canvas.height).data.buffer);
      for (const color of image) colors.add(color);
      const box = canvas.getBoundingClientRect(), told = new Set();
      for (let i = 0; i < 200; i++) {
        canvas.dispatchEvent(new MouseEvent("mousemove",
          {clientX: box.left + box.width * (i % 20) / 20 + 3, clientY: box.top + box.height * i / 200}));
        told.add(document.getElementById("tip").textContent);
      }
      const out = document.createElement("pre");
      out.id = "probe";
      out.textContent = JSON.stringify({colors: colors.size, told: [...told], height: canvas.height});
      document.body.append(out);"""
    dom = browse(page, script)
    seen = json.loads(html.unescape(re.search(r'<pre id="probe">(.*?)</pre>', dom, re.S)[1]))
    assert seen["colors"] >= 4, seen["colors"]
    assert seen["height"] == chunks * 4 * 9, (seen["height"], chunks)
    told = "\n".join(seen["told"])
    assert "slab of 112 B slots" in told and "large object" in told, told[:400]
    assert re.search(r"0x[0-9a-f]+, page \d", told) and "% in memory" in told


def recording_is_drawn():
    """a recorded run has a timeline with the figures of Johnstone and Wilson, and call sites"""
    page, record = HERE / "run.html", HERE / "run.json"
    done = tool.run(
        "run", "--every", "50ms", "--report", page, "--record", record, "--",
        sys.executable, "-c", "import time\nx = [bytes(900) for i in range(20000)]\n"
        "time.sleep(.4)\ndel x[::2]\ntime.sleep(.4)",
        expect=0,
        env={"PYTHONMALLOC": "malloc", "ASHLAR_CONF": "sample_kib:64,sample_percent:0"},
    )
    assert "moments" in done.stderr
    recording = json.loads(record.read_text())
    assert recording["schema"] == 1 and len(recording["moments"]) >= 5
    figures = recording["johnstone_wilson"]
    dom = browse(page)
    timeline = section(dom, "timeline")
    assert "hidden" not in timeline.split(">")[0]
    assert f"{figures['mean']:.2f} on average" in plain(timeline)
    assert timeline.count("<polyline") == 4
    sites = section(dom, "sites")
    assert "hidden" not in sites.split(">")[0]
    assert "Py" in plain(sites), plain(sites)


def sites_are_listed():
    """call sites of a program that takes samples are on its page"""
    page = HERE / "sites.html"
    with subject([KNOWN, 100, COUNT, KEPT_OF_EVERY, LARGE], library=LIBRARY, conf="sample_kib:16,sample_percent:0") as one:
        tool.run("report", "--html", page, one.pid)
    sites = section(browse(page), "sites")
    assert "hidden" not in sites.split(">")[0]
    assert "main" in plain(sites) and "100 %" in plain(sites)


def hostile_name():
    """a program's name cannot become markup"""
    evil = HERE / "<img src=x onerror=alert(1)>"
    shutil.copy(KNOWN, evil)
    page = HERE / "evil.html"
    with subject([evil, 100, 100, 1, 0], library=LIBRARY) as one:
        tool.run("report", "--html", page, one.pid)
    dom = browse(page)
    assert "<img" not in dom and "&lt;img" in dom


sys.exit(
    run_tests((numbers_of_a_process, heat_map_is_drawn, recording_is_drawn, sites_are_listed, hostile_name)) != 0
)
