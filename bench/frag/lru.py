"""The workload redis: Debian's redis-server as a cache that is always full.

700,000 values of 240 bytes, then 170,000 of 492 bytes, with maxmemory 100mb and allkeys-lru, as in
Powers et al., "Mesh", PLDI 2019. One server, on a socket in a temporary directory and no port, is
driven from here and sampled from outside. Live bytes are what Redis itself counts (used_memory), by
usable sizes, so about 100 MiB for everyone; "data" are the keys and values that are still there
at the end, asked for key by key after the last sample.
"""

import os
import shutil
import socket
import subprocess
import tempfile
import time

PHASES = [(700_000, 240), (170_000, 492)]  # keys, bytes of a value
MAXMEMORY = 100 << 20
MAXMEMORY_LEAST = 4 << 20  # below, the empty server and its buffers are what fills it
BATCH = 1000
SAMPLE_EVERY = 5  # batches
IDLE_EVERY_S = 0.25
# Debian's Redis links jemalloc: without a preload it would not run on the C library's malloc.
C_LIBRARY = "libc.so.6"
START_TIMEOUT_S = 20
SILENCE_TIMEOUT_S = 120
COLUMNS = ["time_s", "moved", "live", "usable", "pss", "rss", "huge", "tables", "active", "metadata",
           "mark"]


class LruError(Exception):
    """What went wrong, in a line."""


def installed():
    return shutil.which("redis-server") is not None


def run(library, scale, idle_s):
    """One run with this library preloaded, None for the C library's malloc; as ashlar-frag's."""
    maxmemory = max(int(MAXMEMORY * scale), MAXMEMORY_LEAST)
    with tempfile.TemporaryDirectory(prefix="ashlar-frag-") as directory:
        server = Server(directory, library or C_LIBRARY, maxmemory)
        try:
            load(server, scale)
            idle(server, idle_s)
            data = sum(server.count(keys) * (len(keys[0]) + value) for keys, value in batches(scale))
            server.check_malloc(library)
            return {"workload": "redis", "scale": scale, "data": data, **server.costs(),
                    "columns": COLUMNS, "samples": server.samples}
        finally:
            server.stop()


def load(server, scale):
    server.sample("start")
    for number, (keys, value) in enumerate(batches(scale)):
        server.store(keys, b"x" * value)
        if number % SAMPLE_EVERY == 0:
            server.sample()
    server.sample("load_end")


def idle(server, idle_s):
    deadline = time.monotonic() + idle_s
    while (left_s := deadline - time.monotonic()) > 0:
        time.sleep(min(left_s, IDLE_EVERY_S))
        server.sample(ask=False)


def batches(scale):
    """Keys, and the bytes of each one's value."""
    for phase, (count, value) in enumerate(PHASES):
        for first in range(0, int(count * scale), BATCH):
            last = min(first + BATCH, int(count * scale))
            yield [b"%d:%08d" % (phase, index) for index in range(first, last)], value


def command(*words):
    return b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%s\r\n" % (len(w), w) for w in words)


class Server:
    def __init__(self, directory, library, maxmemory):
        self.start_s = time.monotonic()
        self.samples = []
        self.moved = self.live = 0
        self.log_path = os.path.join(directory, "log")
        path = os.path.join(directory, "socket")
        with open(self.log_path, "wb") as log:
            self.process = subprocess.Popen(
                ["redis-server", "--port", "0", "--unixsocket", path, "--save", "",
                 "--maxmemory", str(maxmemory), "--maxmemory-policy", "allkeys-lru"],
                env={**os.environ, "LD_PRELOAD": library}, cwd=directory,
                stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        try:
            self._connect(path)
        except BaseException:
            self.stop()
            raise

    def _connect(self, path):
        deadline = time.monotonic() + START_TIMEOUT_S
        while True:
            self.socket = socket.socket(socket.AF_UNIX)
            self.socket.settimeout(SILENCE_TIMEOUT_S)
            try:
                self.socket.connect(path)
                break
            except OSError:
                self.socket.close()
            if self.process.poll() is not None or time.monotonic() > deadline:
                with open(self.log_path, errors="replace") as log:
                    said = (log.read().strip().splitlines() or [""])[-1]
                raise LruError(f"redis-server does not start: {said}")
            time.sleep(0.02)
        self.replies = self.socket.makefile("rb")

    def _reply(self):
        line = self.replies.readline()
        if not line.endswith(b"\n") or line.startswith(b"-"):
            raise LruError(f"redis-server answers {line!r}")
        return line

    def store(self, keys, value):
        self.socket.sendall(b"".join(command(b"SET", key, value) for key in keys))
        self.moved += sum(len(key) + len(value) for key in keys)
        for _ in keys:
            self._reply()

    def count(self, keys):
        """How many of these keys are there."""
        self.socket.sendall(command(b"EXISTS", *keys))
        return int(self._reply()[1:])

    def used_memory(self):
        self.socket.sendall(command(b"INFO", b"memory"))
        info = self.replies.read(int(self._reply()[1:]) + len(b"\r\n"))
        return int(info.partition(b"\nused_memory:")[2].split()[0])

    def sample(self, mark="", ask=True):
        if ask:
            self.live = self.used_memory()
        with open(f"/proc/{self.process.pid}/smaps_rollup", encoding="ascii") as file:
            kib = {line.split()[0]: int(line.split()[1]) for line in file if line.endswith("kB\n")}
        self.samples.append([
            time.monotonic() - self.start_s, self.moved, self.live, 0, kib["Pss:"] * 1024,
            kib["Rss:"] * 1024, kib["AnonHugePages:"] * 1024, 0, 0, 0, mark])

    def check_malloc(self, library):
        """A number from the wrong allocator would be worse than none."""
        with open(f"/proc/{self.process.pid}/maps", encoding="utf-8") as file:
            maps = [line.split() for line in file]
        if library and not any(words[-1] == os.path.realpath(library) for words in maps):
            raise LruError(f"redis-server did not load {library}")
        if not library:
            # The C library's malloc grows [heap]; the jemalloc that Redis links never touches it.
            ends = next((words[0].split("-") for words in maps if words[-1] == "[heap]"), "00")
            if int(ends[1], 16) - int(ends[0], 16) < self.live / 2:
                raise LruError("redis-server did not use the C library's malloc")

    def costs(self):
        with open(f"/proc/{self.process.pid}/stat", encoding="ascii") as file:
            fields = file.read().rpartition(")")[2].split()
        ticks = int(fields[11]) + int(fields[12])  # user and system
        return {"cpu_s": ticks / os.sysconf("SC_CLK_TCK"), "faults": int(fields[7])}

    def stop(self):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
