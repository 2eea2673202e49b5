#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""What stands around the tool: the interface for C, completion, the manual, Prometheus.

    around.py TOOL LIBRARY KNOWN C_INTERFACE SOURCES
"""

import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.parse
import urllib.request

from subject import Tool, run_tests, subject

TOOL, LIBRARY, KNOWN, C_INTERFACE, SOURCES = map(os.path.abspath, sys.argv[1:])
tool = Tool(TOOL)
PROMETHEUS = pathlib.Path(SOURCES) / "prometheus"


def known():
    return subject([KNOWN, 100, 30_000, 10, 1_000_000], library=LIBRARY)


def c_agrees():
    """the interface for C has the numbers of the report, and errors are sentences"""
    with known() as one:
        report = tool.json("report", one.pid)
        text = subprocess.run(
            [C_INTERFACE, str(one.pid)], capture_output=True, text=True, timeout=30, check=True
        ).stdout
    said = dict(line.split() for line in text.splitlines())
    for name in ("allocated", "active", "resident", "mapped"):
        assert int(said[name]) == report["heap"][name], name
    for c in report["classes"]:
        assert int(said[f"objects-{c['slot_bytes']}"]) == c["live"]
    assert float(said["unusable"]) == round(report["unusable_free_space"][2]["index"], 6)
    assert int(said["meshable"]) == report["meshable"][0]["bytes"]
    for target, words in (("999999999", "there is none"), ("/nowhere", "No such file")):
        done = subprocess.run([C_INTERFACE, target], capture_output=True, text=True, timeout=30)
        assert done.returncode == 1 and words in done.stdout, done


def completion_knows_the_verbs():
    """bash completes verbs, options and processes"""

    def complete(*words):
        script = (
            f"source {SOURCES}/tool/ashlar.bash; COMP_WORDS=({' '.join(repr(w) for w in words)}); "
            f"COMP_CWORD={len(words) - 1}; _ashlar; printf '%s\\n' \"${{COMPREPLY[@]}}\""
        )
        return subprocess.run(
            ["bash", "-c", script], capture_output=True, text=True, timeout=30, check=True
        ).stdout.split()

    assert complete("ashlar", "re") == ["report"]
    assert complete("ashlar", "report", "--h") == ["--html", "--help"]
    with known() as one:
        assert str(one.pid) in complete("ashlar", "doctor", "")
    # Whatever the tool has, completion and the manual have.
    manual = pathlib.Path(SOURCES, "tool", "ashlar.1").read_text().replace("\\-", "-")
    text = tool.run("--help", expect=0).stdout
    verbs = [line.split()[0] for line in text.split("Subcommands:")[1].splitlines()
             if line.startswith("  ") and line.split()]
    assert len(verbs) == 11, verbs
    for verb in verbs:
        assert verb in complete("ashlar", ""), verb
        assert f"ashlar {verb}" in manual, verb
        options = {w.split(",")[-1] for line in tool.run(verb, "--help", expect=0).stdout.splitlines()
                   for w in line.split()[:1] if w.startswith("-")}
        for option in options - {"--help"}:
            assert option in complete("ashlar", verb, "--"), (verb, option)
            assert option in manual, (verb, option)
    for verb in ("ls", "stat", "check", "recover", "rm"):
        assert verb in tool.run("shm", "--help", expect=0).stdout
        assert verb in complete("ashlar", "shm", "")
        assert f"ashlar shm {verb}" in manual, verb
    assert complete("ashlar", "shm", "rm", "--f") == ["--force"]


def prometheus_reads_it():
    """promtool accepts the numbers and the rules; a real Prometheus scrapes many processes"""
    promtool, server = shutil.which("promtool"), shutil.which("prometheus")
    if promtool is None or server is None:
        print("no Prometheus here: not tested")
        return
    json.loads((PROMETHEUS / "dashboard.json").read_text())
    rules = PROMETHEUS / "ashlar.rules.yml"
    subprocess.run([promtool, "check", "rules", rules], check=True, stdout=subprocess.DEVNULL, timeout=30)
    with known() as one, known() as two, tempfile.TemporaryDirectory() as directory:
        text = tool.run("export", "--prometheus", one.pid, two.pid).stdout
        checked = subprocess.run(
            [promtool, "check", "metrics"], input=text, text=True, capture_output=True, timeout=30
        )
        assert checked.returncode == 0 and not checked.stderr, checked.stderr
        serve = subprocess.Popen([TOOL, "serve", "--listen", "127.0.0.1:0", str(one.pid), str(two.pid)],
                                 stdout=subprocess.PIPE, text=True)
        port = serve.stdout.readline().split(":")[2].split("/")[0]
        config = pathlib.Path(directory, "prometheus.yml")
        config.write_text(
            f"rule_files: [{rules}]\nglobal: {{evaluation_interval: 1s}}\nscrape_configs:\n"
            f"- {{job_name: ashlar, scrape_interval: 1s, static_configs: [{{targets: ['127.0.0.1:{port}']}}]}}\n"
        )
        own_port = 20000 + os.getpid() % 20000
        prometheus = subprocess.Popen(
            [server, f"--config.file={config}", f"--storage.tsdb.path={directory}/data",
             f"--web.listen-address=127.0.0.1:{own_port}"],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            allocated = tool.json("report", one.pid)["heap"]["allocated"]
            query = urllib.parse.urlencode({"query": f'ashlar_allocated_bytes{{pid="{one.pid}"}}'})
            seen, deadline = [], time.monotonic() + 30
            while not seen and time.monotonic() < deadline:
                time.sleep(0.5)
                try:
                    url = f"http://127.0.0.1:{own_port}/api/v1/query?{query}"
                    with urllib.request.urlopen(url, timeout=10) as answer:
                        seen = json.load(answer)["data"]["result"]
                except OSError:
                    pass
            assert seen and int(seen[0]["value"][1]) == allocated, seen
        finally:
            for process in (prometheus, serve):
                process.send_signal(signal.SIGTERM)
                process.wait(20)


sys.exit(run_tests((c_agrees, completion_knows_the_verbs, prometheus_reads_it)) != 0)
