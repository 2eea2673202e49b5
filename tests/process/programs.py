#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Real programs, run without and with the library preloaded: what they put out must be the same.

    programs.py LIBRARY [NAME...]

A program is a function that takes a Stage, does something heavy and returns what it saw: bytes,
numbers, digests. Exit code 0: all the same; 1: something differs or failed; 77: the one program
asked for is not installed.
"""

import hashlib
import os
import pathlib
import pwd
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request

from stage import Failed, Missing, Stage, end, quietly


def work(name):
    """One of the files in work/, which keep the programs busy."""
    return (pathlib.Path(__file__).parent / "work" / name).read_text()


# ---- the programs ------------------------------------------------------------------------------


def python(stage):
    """Debian's python3, with its own small-object allocator and with every object from malloc."""
    python3 = stage.find("python3")
    script = stage.write("work.py", work("python.py"))
    return [
        stage.run(python3, script, env={"PYTHONHASHSEED": "0", "PYTHONMALLOC": kind})
        for kind in ("pymalloc", "malloc")
    ]


def perl(stage):
    """Hashes, closures of regular expressions, growing strings, fork."""
    return stage.run(
        stage.find("perl"), stage.write("work.pl", work("perl.pl")), env={"PERL_HASH_SEED": "0"}
    )


def cpp_source():
    """A translation unit that keeps the compiler busy for some seconds."""
    lines = [
        f"#include <{name}>"
        for name in "algorithm chrono functional map memory regex set string tuple variant vector".split()
    ]
    lines.append(
        "template <int N> struct Sum { static constexpr int value = Sum<N - 1>::value + N; };"
    )
    lines.append("template <> struct Sum<0> { static constexpr int value = 0; };")
    for i in range(16):
        lines.append(
            f"""
struct T{i} {{ int key = {i}; std::string name; std::vector<double> values; }};
int use{i}(std::map<std::string, T{i}>& table, std::vector<std::function<int(int)>>& calls) {{
  std::variant<int, std::string, T{i}> v = T{i}{{}};
  std::sort(calls.begin(), calls.end(), [](auto const& a, auto const& b) {{ return a({i}) < b({i}); }});
  for (auto& [name, entry] : table) entry.key += Sum<{i * 7 + 100}>::value + static_cast<int>(entry.values.size());
  return std::visit([](auto const& x) {{ return static_cast<int>(sizeof x); }}, v) + static_cast<int>(calls.size());
}}"""
        )
    return "\n".join(lines)


def gcc(stage):
    """A large C++ file, to an object and to assembly, by driver, compiler and assembler."""
    compiler = stage.find("g++")
    stage.write("big.cpp", cpp_source())
    command = [
        compiler,
        "-std=c++20",
        "-frandom-seed=1",
        f"-fdebug-prefix-map={stage.directory}=.",
        "big.cpp",
    ]
    stage.run(*command, "-O2", "-g", "-c", "-o", "big.o")
    stage.run(*command, "-S", "-o", "big.s")
    return [digest(stage.directory / "big.o"), digest(stage.directory / "big.s")]


def git(stage):
    """Many commits, a merge, gc and fsck; the ids say that all of it is the same."""
    git_command = stage.find("git")
    env = {
        f"GIT_{who}_{what}": value
        for who in ("AUTHOR", "COMMITTER")
        for what, value in (
            ("NAME", "Somebody"),
            ("EMAIL", "somebody@example.org"),
            ("DATE", "1700000000 +0000"),
        )
    }
    env |= {"GIT_CONFIG_NOSYSTEM": "1", "GIT_PAGER": "cat"}
    repository = stage.directory / "repository"

    def run(*words):
        return stage.run(git_command, "-C", repository, *words, env=env)

    repository.mkdir()
    run("init", "-q", "-b", "main")
    rng = random.Random(1)
    for commit in range(25):
        for number in range(12):
            lines = [
                f"{commit if rng.random() < 0.1 else 0} line {i} {rng.random() if i % 40 == 0 else ''}"
                for i in range(400)
            ]
            (repository / f"file{number}.txt").write_text("\n".join(lines) + "\n")
        (repository / f"blob{commit}").write_bytes(rng.randbytes(50000))
        run("add", "-A")
        run("commit", "-q", "-m", f"commit {commit}")
    run("checkout", "-q", "-b", "side", "HEAD~5")
    (repository / "side").write_text("side\n")
    run("add", "-A")
    run("commit", "-q", "-m", "side")
    run("checkout", "-q", "main")
    run("merge", "-q", "-m", "merge", "side")
    run("gc", "-q", "--aggressive", "--prune=now")
    return [
        run("fsck", "--full"),
        run("log", "--graph", "--stat", "-p", "--all"),
        run("rev-parse", "HEAD", "side"),
        run("blame", "file1.txt"),
        run("grep", "-c", "line 3"),
        run("count-objects", "-v").split(b"size-pack")[0],
    ]


def sqlite(stage):
    """Joins, sorts, full text and JSON in memory."""
    return stage.run(stage.find("sqlite3"), ":memory:", given=work("sqlite.sql"))


def redis(stage):
    """A server filled, thinned out and asked for all that it holds; then saved, and ended."""
    server_command, client = stage.find("redis-server"), stage.find("redis-cli")
    path = stage.directory / "redis.sock"
    server = stage.start(
        server_command,
        "--port",
        "0",
        "--unixsocket",
        path,
        "--save",
        "",
        "--appendonly",
        "no",
        "--dir",
        stage.directory,
        "--io-threads",
        "2",
        "--activedefrag",
        "no",
    )
    try:
        stage.wait_for(lambda: quietly(client, "-s", path, "ping") == 0, server)
        rng = random.Random(1)
        commands = []
        for i in range(60000):
            value = chr(97 + i % 26) * rng.randrange(1, 900)
            commands.append(
                (
                    f"set string:{i} {value}",
                    f"hset hash:{i % 500} field{i} {value[:40]}",
                    f"rpush list:{i % 300} {value[:100]}",
                    f"zadd sorted:{i % 100} {i} member{i}",
                    f"append grown:{i % 200} {value[:30]}",
                )[i % 5]
            )
        commands += [f"del string:{i}" for i in range(0, 60000, 5) if rng.random() < 0.75]
        commands += [f"del list:{i}" for i in range(0, 300, 3)] + ["memory purge"]
        loaded = stage.run(
            client, "-s", path, "--pipe", given="\n".join(commands) + "\n"
        ).splitlines()[-1]
        seen = [
            loaded,
            stage.run(client, "-s", path, "eval", work("redis.lua"), "0"),
            stage.run(client, "-s", path, "dbsize"),
        ]
        stage.run(client, "-s", path, "bgsave")  # forks
        dump = stage.directory / "dump.rdb"
        stage.wait_for(
            lambda: dump.exists()
            and b"rdb_bgsave_in_progress:0" in stage.run(client, "-s", path, "info", "persistence"),
            server,
        )
        quietly(client, "-s", path, "shutdown", "nosave")
        return seen + [server.wait(20)]
    finally:
        server.kill()
        server.wait()


def node(stage):
    """Maps, JSON, compression, buffers outside the JavaScript heap, worker threads."""
    return stage.run(stage.find("node", "nodejs"), stage.write("work.js", work("node.js")))


def nginx(stage):
    """A master and two workers that serve files, whole, compressed and in parts."""
    command = stage.find("nginx")
    root = stage.directory / "root"
    root.mkdir()
    rng = random.Random(1)
    for i in range(30):
        (root / f"file{i}.txt").write_text("".join(rng.choices("abc \n", k=1 + i * i * 500)))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    config = stage.write(
        "nginx.conf",
        f"""
        {"user root;" if os.geteuid() == 0 else ""}
        worker_processes 2; daemon off; pid nginx.pid; error_log stderr warn;
        events {{ worker_connections 128; }}
        http {{
          access_log off; gzip on; gzip_types text/plain; gzip_min_length 1; default_type text/plain;
          {" ".join(f"{kind}_temp_path {stage.directory}/{kind};" for kind in
                    ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))}
          server {{ listen 127.0.0.1:{port}; root {root}; location / {{ autoindex on; }}
                    location /missing/ {{ return 404 "no such thing"; }} }} }}""",
    )
    server = stage.start(command, "-e", "stderr", "-p", stage.directory, "-c", config)
    url = f"http://127.0.0.1:{port}"
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def fetch(path, **headers):
        try:
            with opener.open(
                urllib.request.Request(url + path, headers=headers), timeout=20
            ) as answer:
                return answer.status, hashlib.md5(answer.read()).hexdigest()
        except urllib.error.HTTPError as error:
            return error.code, error.read()

    def workers():
        return pathlib.Path(f"/proc/{server.pid}/task/{server.pid}/children").read_text().split()

    def is_up():
        with socket.socket() as probe:
            return len(workers()) == 2 and probe.connect_ex(("127.0.0.1", port)) == 0

    try:
        stage.wait_for(is_up, server)
        for worker in workers():
            stage.expect_mapped(worker)
        seen = []
        for _ in range(4):
            for i in range(30):
                seen += [
                    fetch(f"/file{i}.txt"),
                    fetch(f"/file{i}.txt", **{"Accept-Encoding": "gzip"}),
                    fetch(f"/file{i}.txt", Range="bytes=0-0"),
                ]
            seen.append(fetch("/missing/x"))
        server.send_signal(signal.SIGHUP)  # reads its configuration again and replaces its workers
        time.sleep(0.3)
        seen.append(fetch("/file29.txt"))
        return seen + [end(server, signal.SIGQUIT)]
    finally:
        server.kill()
        server.wait()


def postgresql(stage):
    """initdb, a server on a Unix socket, pgbench with a fixed seed, and queries over the result."""
    homes = sorted(pathlib.Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    if not homes:
        raise Missing("postgresql")
    home = homes[-1].parent
    if os.geteuid() == 0:  # the server refuses to run as root
        owner = pwd.getpwnam("postgres")
        os.chown(stage.directory, owner.pw_uid, owner.pw_gid)
        stage.user = "postgres"
    data = stage.directory / "data"
    stage.run(
        home / "initdb",
        "-D",
        data,
        "-U",
        "postgres",
        "--no-sync",
        "--auth=trust",
        "--no-locale",
        "-E",
        "UTF8",
    )
    server = stage.start(
        home / "postgres",
        "-D",
        data,
        "-k",
        stage.directory,
        "-c",
        "listen_addresses=",
        "-c",
        "fsync=off",
        "-c",
        "shared_buffers=32MB",
        "-c",
        "max_parallel_workers_per_gather=2",
        "-c",
        "jit=off",
        "-c",
        "min_parallel_table_scan_size=0",
        "-c",
        "parallel_setup_cost=0",
    )
    where = ("-h", stage.directory, "-U", "postgres")
    try:
        stage.wait_for(lambda: quietly(home / "pg_isready", *where) == 0, server)
        pgbench = (home / "pgbench", *where, "postgres")
        stage.run(*pgbench, "-q", "-i", "-s", "2")
        stage.run(*pgbench, "-n", "-c", "4", "-j", "2", "-t", "250", "--random-seed=42")
        stage.run(
            *pgbench, "-n", "-c", "2", "-t", "250", "-M", "prepared", "-S", "--random-seed=43"
        )
        seen = stage.run(
            home / "psql",
            *where,
            "-X",
            "-A",
            "-q",
            "-v",
            "ON_ERROR_STOP=1",
            "postgres",
            given=work("postgresql.sql"),
        )
        return [seen, end(server, signal.SIGINT)]
    finally:
        if server.poll() is None:
            server.send_signal(signal.SIGQUIT)
        server.wait()


PROGRAMS = {
    "python3": python,
    "perl": perl,
    "gcc": gcc,
    "git": git,
    "sqlite3": sqlite,
    "redis": redis,
    "node": node,
    "nginx": nginx,
    "postgresql": postgresql,
}


# ---- with and without --------------------------------------------------------------------------


def digest(path):
    return f"{path.name} {path.stat().st_size} {hashlib.sha256(path.read_bytes()).hexdigest()}"


def first_difference(expected, seen):
    """The first place where two results differ, short enough to read."""
    if (
        isinstance(expected, (list, tuple))
        and isinstance(seen, (list, tuple))
        and len(expected) == len(seen)
    ):
        for i, (a, b) in enumerate(zip(expected, seen)):
            if a != b:
                return f"part {i}: {first_difference(a, b)}"
    if isinstance(expected, bytes) and isinstance(seen, bytes):
        for number, (a, b) in enumerate(zip(expected.splitlines(), seen.splitlines()), 1):
            if a != b:
                return f"line {number}: expected {a[:200]!r}, seen {b[:200]!r}"
        return f"expected {len(expected)} bytes, seen {len(seen)}"
    return f"expected {expected!r:.300}, seen {seen!r:.300}"


def perform(program, library):
    """Runs a program in a directory of its own: what it saw, and how many seconds it took."""
    with tempfile.TemporaryDirectory(prefix="ashlar-programs.") as top:
        os.chmod(top, 0o755)
        if library:
            library = shutil.copy(library, top)  # where any user may read it
        stage = pathlib.Path(top) / "stage"
        stage.mkdir()
        started = time.monotonic()
        return program(Stage(library, stage)), time.monotonic() - started


def compare(name, library):
    """Prints one line about a program; returns its exit code."""
    try:
        expected, seconds_without = perform(PROGRAMS[name], None)
    except Missing as missing:
        print(f"{name}: SKIP: {missing} is not installed")
        return 77
    except (Failed, subprocess.TimeoutExpired) as failure:
        print(f"{name}: FAILED even without the library: {failure}")
        return 1
    try:
        seen, seconds = perform(PROGRAMS[name], library)
    except (Failed, subprocess.TimeoutExpired) as failure:
        print(f"{name}: FAILED: {failure}")
        return 1
    if seen != expected:
        print(f"{name}: FAILED: the output differs: {first_difference(expected, seen)}")
        return 1
    print(f"{name}: same output ({seconds:.1f} s, {seconds_without:.1f} s without)", flush=True)
    return 0


def main():
    if (
        len(sys.argv) < 2
        or not os.path.exists(sys.argv[1])
        or not set(sys.argv[2:]) <= set(PROGRAMS)
    ):
        sys.exit(f"usage: programs.py LIBRARY [{' | '.join(PROGRAMS)}]...")
    library = os.path.abspath(sys.argv[1])
    names = sys.argv[2:] or list(PROGRAMS)
    codes = [compare(name, library) for name in names]
    if len(names) == 1:
        sys.exit(codes[0])
    sys.exit(1 if 1 in codes else 0)


main()
