#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Redis, unmodified, with active defragmentation on libashlar_je.a.

    bench/compact/redis.py [--build DIR] [--redis DIR] [--own-test]

Gets Debian's source package of Redis and builds it, without Debian's patches, against ashlar/je/jemalloc/jemalloc.h and
libashlar_je.a, as it would be built against jemalloc. Fills it, deletes half of the keys at random,
turns `activedefrag` on, and prints allocator_frag_ratio before and after, and how many bytes were
moved for each byte that Redis no longer holds.

    --build DIR   Ashlar's build (build/release)
    --redis DIR   where the source package is unpacked and built (build/redis); kept for next time
    --own-test    Redis's own tests/unit/memefficiency.tcl as well (needs tclsh)

Needs what builds C programs, dpkg-dev, and an apt that reaches Debian's archive; nothing is
installed, and apt's configuration stays as it is. Status 1 when a target is missed.
"""

import argparse
import contextlib
import itertools
import pathlib
import random
import socket
import subprocess
import sys
import tempfile
import time

TREE = pathlib.Path(__file__).resolve().parent.parent.parent
SUITE = "bookworm"
ARCHIVE = "http://deb.debian.org/debian"
KEYS = "/usr/share/keyrings/debian-archive-keyring.gpg"

MIB = 1 << 20
KEYS_SET = 600_000
KEYS_DELETED = 0.5  # at random
VALUE_BYTES = 50, 450
LEAST_BEFORE = 1.4
MOST_AFTER = 1.05
MOST_MOVED = 1.5  # bytes, for each byte freed
START_S = 20
DEFRAG_S = 180


def run(*command, **options):
    subprocess.run([str(word) for word in command], check=True, **options)


def fetch_source(directory):
    """Unpacks the source package into a directory below this one, with a configuration for apt of
    its own; returns that directory."""
    directory.mkdir(parents=True, exist_ok=True)
    found = sorted(directory.glob("redis-*/src/Makefile"))
    if found:
        return found[-1].parent.parent
    with tempfile.TemporaryDirectory(prefix="ashlar-apt-") as apt:
        apt = pathlib.Path(apt)
        for below in "lists/partial", "cache/archives/partial", "parts":
            (apt / below).mkdir(parents=True)
        sources = apt / "sources.list"
        sources.write_text(f"deb-src [signed-by={KEYS}] {ARCHIVE} {SUITE} main\n")
        options = [
            f"-o={name}={path}"
            for name, path in {
                "Dir::Etc::sourcelist": sources,
                "Dir::Etc::sourceparts": apt / "parts",
                "Dir::State::lists": apt / "lists",
                "Dir::Cache": apt / "cache",
            }.items()
        ]
        run("apt-get", "-qq", *options, "update")
        run("apt-get", "-qq", *options, "source", "--download-only", "redis", cwd=directory)
    # Without Debian's patches: one of them makes Redis use the names without the prefix.
    run("dpkg-source", "--skip-patches", "-x", *directory.glob("redis_*.dsc"), cwd=directory)
    return sorted(directory.glob("redis-*/src/Makefile"))[-1].parent.parent


def build(source, library, include):
    """Redis's own make, told to link no allocator, and where ours is."""
    run(
        "make", "-C", source, "-j2", "MALLOC=libc", "USE_SYSTEMD=no", "OPTIMIZATION=-O2",
        f"REDIS_CFLAGS=-DUSE_JEMALLOC -I{include}",
        f"REDIS_LDFLAGS=-Wl,--whole-archive {library} -Wl,--no-whole-archive",
        "redis-server", "redis-cli", "redis-benchmark",
        stdout=subprocess.DEVNULL,
    )  # fmt: skip
    server = source / "src" / "redis-server"
    if server.stat().st_mtime < library.stat().st_mtime:
        server.unlink()  # make does not know that it depends on the library
        build(source, library, include)
    return server


def encoded(words):
    words = [str(word).encode() for word in words]
    return b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%s\r\n" % (len(w), w) for w in words)


class Client:
    """One connection, one command at a time."""

    def __init__(self, path):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.connect(str(path))
        self.replies = self.socket.makefile("rb")

    def __call__(self, *words):
        self.socket.sendall(encoded(words))
        line = self.replies.readline().rstrip().decode()
        if line.startswith("-"):
            raise RuntimeError(f"{words}: {line}")
        if line.startswith("$"):
            return self.replies.read(int(line[1:]) + 2)[:-2].decode()
        return line[1:]

    def many(self, commands):
        """Sends commands that have one line of reply each, a thousand at a time."""
        for first in range(0, len(commands), 1000):
            batch = commands[first : first + 1000]
            self.socket.sendall(b"".join(map(encoded, batch)))
            for _ in batch:
                self.replies.readline()

    def set_many(self, count, least_and_most):
        rng = random.Random(1)
        self.many([("SET", f"key:{i}", "A" * rng.randint(*least_and_most)) for i in range(count)])

    def delete_many(self, count, part):
        rng = random.Random(2)
        self.many([("DEL", f"key:{i}") for i in rng.sample(range(count), int(count * part))])

    def info(self, section):
        lines = (line.partition(":") for line in self("INFO", section).splitlines())
        return {name: value for name, _, value in lines if value}


@contextlib.contextmanager
def running(server):
    with tempfile.TemporaryDirectory(prefix="ashlar-redis-") as directory:
        path = pathlib.Path(directory) / "socket"
        process = subprocess.Popen(
            [server, "--port", "0", "--unixsocket", path, "--save", "", "--hz", "100",
             "--enable-debug-command", "local"],
            cwd=directory, stdout=subprocess.DEVNULL,
        )  # fmt: skip
        try:
            deadline = time.monotonic() + START_S
            while not path.exists():
                if process.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError("redis-server does not start")
                time.sleep(0.05)
            yield Client(path)
        finally:
            process.kill()
            process.wait()


def memory(client):
    """What INFO says of the allocator, as of now, and how many objects it holds."""
    time.sleep(0.3)  # it is renewed every tenth of a second
    info = client.info("memory")
    objects = 0
    with contextlib.suppress(RuntimeError):  # after the last size class
        for i in itertools.count():
            objects += int(client("DEBUG", "MALLCTL", f"stats.arenas.4096.bins.{i}.curregs"))
    return {
        "ratio": float(info["allocator_frag_ratio"]),
        "allocated": int(info["allocator_allocated"]),
        "active": int(info["allocator_active"]),
        "rss": int(info["used_memory_rss"]),
        "objects": objects,
    }


def defragment(client):
    """Fills, thins out, defragments; the memory before and after, the number of moves, the seconds."""
    for name, value in {
        "active-defrag-threshold-lower": 4,
        "active-defrag-ignore-bytes": "1mb",
        "active-defrag-cycle-min": 25,
        "active-defrag-cycle-max": 75,
    }.items():
        client("CONFIG", "SET", name, value)
    client.set_many(KEYS_SET, VALUE_BYTES)
    client.delete_many(KEYS_SET, KEYS_DELETED)
    before = memory(client)
    digest = client("DEBUG", "DIGEST")
    client("CONFIG", "SET", "activedefrag", "yes")
    begin = time.monotonic()
    quiet_since = begin
    while time.monotonic() - begin < DEFRAG_S and time.monotonic() - quiet_since < 3:
        time.sleep(0.1)
        if client.info("memory")["active_defrag_running"] != "0":
            quiet_since = time.monotonic()
    seconds = quiet_since - begin
    client("CONFIG", "SET", "activedefrag", "no")
    after = memory(client)
    if client("DEBUG", "DIGEST") != digest:
        raise RuntimeError("the data changed")
    moves = int(client.info("stats")["active_defrag_hits"])
    return before, after, moves, seconds


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--build", type=pathlib.Path, default=TREE / "build" / "release")
    parser.add_argument("--redis", type=pathlib.Path, default=TREE / "build" / "redis")
    parser.add_argument("--own-test", action="store_true")
    options = parser.parse_args()
    library = options.build.resolve() / "libashlar_je.a"
    if not library.exists():
        sys.exit(f"there is no {library}; script/build makes it")
    source = fetch_source(options.redis.resolve())
    server = build(source, library, TREE / "allocator" / "include" / "ashlar" / "je")

    with running(server) as client:
        before, after, moves, seconds = defragment(client)
    # Redis counts objects, not bytes; those that were moved are as large as all are on average.
    moved = moves * after["allocated"] / after["objects"] / (before["active"] - after["active"])
    for title, sample in ("before", before), ("after", after):
        print(
            f"{title:7} allocator_frag_ratio {sample['ratio']:.2f}   allocated "
            f"{sample['allocated'] / MIB:.1f} MiB   active {sample['active'] / MIB:.1f} MiB   "
            f"RSS {sample['rss'] / MIB:.1f} MiB"
        )
    print(f"{moves} objects moved in {seconds:.1f} s, {moved:.2f} bytes for each byte freed")
    print("all data are what they were (DEBUG DIGEST)")
    if options.own_test:
        run("./runtest", "--single", "unit/memefficiency", "--clients", "1", cwd=source)
    reached = (
        before["ratio"] >= LEAST_BEFORE and after["ratio"] <= MOST_AFTER and moved <= MOST_MOVED
    )
    sys.exit(0 if reached else 1)


main()
