#!/usr/bin/env python3
"""The demo's main job: one Redis, filled and thinned out, on two allocators.

    script/demo_redis.py LIBRARY      LIBRARY: the allocator to preload; script/demo gives Ashlar's

Debian's redis-server runs once on the C library's malloc and once on LIBRARY. Each run stores the
same values, deletes the same three of four, waits, and is measured from outside after each step.
At the end the report of the tool beside LIBRARY is shown, and its page kept as report.html there;
without the tool, LIBRARY's own account (ASHLAR_CONF=exit_report:text).

The server listens on a socket in a temporary directory, on no port, and keeps nothing on disk.
"""

import contextlib
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time

VALUES = 300_000
VALUE_BYTES_MIN = 16
VALUE_BYTES_MAX = 2000
VALUE_BYTES_MEDIAN = 250
VALUE_SIGMA = 0.9  # of the logarithm of the size
DELETED = 0.75
IDLE_S = 3
SEED = 20
BATCH = 500
MIB = 1 << 20

# Debian's Redis links jemalloc, so without any preload it would not run on the C library. Naming
# libc.so.6 first puts its malloc family before jemalloc's in the order of symbol look-up.
C_LIBRARY = "libc.so.6"


class DemoError(Exception):
    """What went wrong, in a line for the user."""


class Workload:
    """The commands to send, encoded before any clock runs; alike for every server."""

    def __init__(self):
        rng = random.Random(SEED)
        noise = rng.randbytes(MIB)
        sizes = []
        self.load = []
        for first in range(0, VALUES, BATCH):
            commands = []
            for index in range(first, min(first + BATCH, VALUES)):
                key = self._key(index)
                size = self._value_bytes(rng)
                start = rng.randrange(MIB - VALUE_BYTES_MAX)
                commands.append(_command(b"SET", key, noise[start : start + size]))
                sizes.append(len(key) + size)
            self.load.append((b"".join(commands), len(commands) * len(b"+OK\r\n")))

        victims = rng.sample(range(VALUES), int(VALUES * DELETED))
        self.delete = []
        for first in range(0, len(victims), BATCH):
            batch = victims[first : first + BATCH]
            commands = b"".join(_command(b"DEL", self._key(index)) for index in batch)
            self.delete.append((commands, len(batch) * len(b":1\r\n")))

        self.loaded_bytes = sum(sizes)
        self.kept_bytes = self.loaded_bytes - sum(sizes[index] for index in victims)

    @staticmethod
    def _key(index):
        return b"user:%06d" % index

    @staticmethod
    def _value_bytes(rng):
        size = int(VALUE_BYTES_MEDIAN * rng.lognormvariate(0, VALUE_SIGMA))
        return min(max(size, VALUE_BYTES_MIN), VALUE_BYTES_MAX)


def _command(*words):
    parts = [b"*%d\r\n" % len(words)]
    parts += [b"$%d\r\n%s\r\n" % (len(word), word) for word in words]
    return b"".join(parts)


class Server:
    """A redis-server with `library` preloaded, alone in `directory`."""

    def __init__(self, library, directory):
        self.directory = directory
        self.account_path = os.path.join(directory, "account")
        self.log_path = os.path.join(directory, "log")
        # The socket's path may be 107 bytes long at most; the directory's may be longer.
        os.chdir(directory)
        environment = dict(os.environ, LD_PRELOAD=library)
        conf = environment.get("ASHLAR_CONF")
        environment["ASHLAR_CONF"] = "exit_report:text" + (f",{conf}" if conf else "")
        with open(self.log_path, "wb") as log, open(self.account_path, "wb") as account:
            self.process = subprocess.Popen(
                ["redis-server", "--port", "0", "--unixsocket", "socket", "--save", ""],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=account,
                start_new_session=True,
            )
        try:
            self._connect()
        except BaseException:
            self.kill()
            raise

    def _connect(self):
        deadline = time.monotonic() + 20
        while True:
            self.socket = socket.socket(socket.AF_UNIX)
            try:
                self.socket.connect("socket")
                return
            except OSError:
                self.socket.close()
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise DemoError("redis-server does not start" + self._last_words())
            time.sleep(0.02)

    def _last_words(self):
        words = ""
        for path in self.log_path, self.account_path:
            with open(path, errors="replace") as file:
                words += "".join("\n    " + line.rstrip() for line in file.readlines()[-10:])
        return ":" + words if words else ""

    def run(self, batches):
        """Sends each batch, awaits its replies of known length; returns the CPU seconds spent."""
        start = self._cpu_s()
        for commands, reply_bytes in batches:
            self.socket.sendall(commands)
            self._receive(reply_bytes)
        return self._cpu_s() - start

    def _cpu_s(self):
        with open(f"/proc/{self.process.pid}/stat") as file:
            fields = file.read().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")  # user and system

    def _receive(self, count):
        while count > 0:
            reply = self.socket.recv(min(count, MIB))
            if not reply:
                self.process.wait()
                raise DemoError("redis-server died" + self._last_words())
            if reply[:1] == b"-":
                raise DemoError("redis-server: " + reply.decode(errors="replace").strip())
            count -= len(reply)

    def memory(self, data_bytes):
        """Bytes by name: what the client stored, what Redis counts, what the kernel counts."""
        self.socket.sendall(_command(b"INFO", b"memory"))
        with self.socket.makefile("rb") as replies:  # $BYTES, then the text
            info = replies.read(int(replies.readline()[1:]) + len(b"\r\n"))
        # Redis adds up used_memory itself. Its allocator_* fields it asks of jemalloc, and on the C
        # library's malloc that is idle.
        used = next(line for line in info.split() if line.startswith(b"used_memory:"))
        with open(f"/proc/{self.process.pid}/smaps_rollup") as file:
            fields = dict(line.split()[:2] for line in file if line.endswith("kB\n"))
        return {
            "data": data_bytes,
            "used": int(used.split(b":")[1]),
            "rss": int(fields["Rss:"]) * 1024,
            "pss": int(fields["Pss:"]) * 1024,
        }

    def maps(self, name):
        """The kilobytes resident in the mappings of this name."""
        total = 0
        with open(f"/proc/{self.process.pid}/smaps") as file:
            counts = False
            for line in file:
                words = line.split()
                if not words[0].endswith(":"):
                    counts = words[-1].endswith(name)
                elif counts and words[0] == "Rss:":
                    total += int(words[1])
        return total

    def shut_down(self):
        """Ends the server as its user would, and returns what it wrote to standard error."""
        self.socket.sendall(_command(b"SHUTDOWN", b"NOSAVE"))
        self.process.wait(timeout=60)
        with open(self.account_path, errors="replace") as file:
            account = file.read()
        if self.process.returncode != 0:
            raise DemoError("redis-server ended badly" + self._last_words())
        return account

    def kill(self):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()


@contextlib.contextmanager
def running(library):
    """A server that is gone, with its directory, when the block ends, however it ends."""
    with tempfile.TemporaryDirectory(prefix="ashlar-demo-") as directory:
        server = None
        try:
            server = Server(library, directory)
            yield server
        finally:
            if server:
                server.kill()
            os.chdir("/")


def report(library, pid):
    """What the tool beside the library says of a process, and the page it draws; none without."""
    directory = os.path.dirname(library)
    tool = os.path.join(directory, "ashlar")
    if library == C_LIBRARY or not os.access(tool, os.X_OK):
        return "", None
    page = os.path.join(directory, "report.html")
    done = subprocess.run(
        [tool, "report", "--html", page, str(pid)], stdout=subprocess.PIPE, text=True, timeout=60
    )
    if done.returncode > 1:  # 1: there are findings
        raise DemoError("the report failed")
    return done.stdout, page


def run(library, workload):
    """One whole run: the memory after each of three steps, the CPU seconds of two, the report of the
    tool and its page, the account."""
    with running(library) as server:
        seconds = [server.run(workload.load)]
        memory = [server.memory(workload.loaded_bytes)]
        check_allocator(server, library, memory[0]["used"])
        seconds.append(server.run(workload.delete))
        memory.append(server.memory(workload.kept_bytes))
        time.sleep(IDLE_S)
        memory.append(server.memory(workload.kept_bytes))
        return memory, seconds, *report(library, server.process.pid), server.shut_down()


def check_allocator(server, library, used_bytes):
    """A table of the wrong allocator would be worse than none."""
    if library != C_LIBRARY:
        if not server.maps(os.path.basename(os.path.realpath(library))):
            raise DemoError(f"redis-server did not load {library}")
    elif server.maps("[heap]") * 1024 < used_bytes / 2:
        # The C library's malloc grows [heap]; jemalloc never touches it.
        raise DemoError("redis-server did not use the C library's malloc")


def bold(text):
    plain = not sys.stdout.isatty() or os.environ.get("NO_COLOR")
    return text if plain else f"\033[1m{text}\033[0m"


def show_table(names, runs):
    """One column per step and allocator, the two allocators side by side."""
    label, cell = 27, 11
    steps = ["after the load", "after the deletes", f"{IDLE_S} s later, idle"]
    print(bold(" " * label + "".join(step.rjust(2 * cell) for step in steps)))
    print(bold(" " * label + "".join(name.rjust(cell) for _ in steps for name in names)))

    def row(title, value, form):
        cells = (form % value(run[0][step]) for step in range(len(steps)) for run in runs)
        print(title.ljust(label) + "".join(text.rjust(cell) for text in cells))

    row("keys and values, MiB", lambda memory: memory["data"] / MIB, "%.1f")
    row("used_memory, MiB", lambda memory: memory["used"] / MIB, "%.1f")
    row("resident (RSS), MiB", lambda memory: memory["rss"] / MIB, "%.1f")
    row("proportional (PSS), MiB", lambda memory: memory["pss"] / MIB, "%.1f")
    row("RSS / keys and values", lambda memory: memory["rss"] / memory["data"], "%.2f")
    times = (f"{run[1][step]:.2f}" for step in range(2) for run in runs)
    print("CPU seconds taken".ljust(label) + "".join(text.rjust(cell) for text in times))


def main():
    if len(sys.argv) != 2:
        sys.exit("usage: script/demo_redis.py LIBRARY")
    library = os.path.realpath(sys.argv[1])
    if not os.path.isfile(library):
        sys.exit(f"script/demo_redis.py: there is no {library}")
    if not shutil.which("redis-server"):
        sys.exit("script/demo_redis.py: no redis-server; script/bootstrap demo installs it")
    for number in signal.SIGTERM, signal.SIGHUP:
        signal.signal(number, lambda number, frame: sys.exit(128 + number))

    name = os.path.basename(library).removeprefix("lib").split(".")[0]
    names = ["libc", name]
    print(
        f"demo: Redis on the C library's malloc and on {name}: {VALUES:,} values of "
        f"{VALUE_BYTES_MIN} to {VALUE_BYTES_MAX:,} bytes,\nlog-normal around "
        f"{VALUE_BYTES_MEDIAN}; then {DELETED:.0%} of them, taken at random, are deleted\n",
        flush=True,
    )
    workload = Workload()
    # A first load, unmeasured: whichever comes first takes half as long again.
    with running(C_LIBRARY) as server:
        server.run(workload.load)
    runs = [run(allocator, workload) for allocator in (C_LIBRARY, library)]

    show_table(names, runs)
    ratios = [run[0][-1]["rss"] / run[0][-1]["data"] for run in runs]
    print(
        f"\nFor each byte of data still in it, the idle Redis holds {ratios[1]:.2f} bytes of "
        f"memory on {name},\nand {ratios[0]:.2f} on the C library's malloc. used_memory is what Redis "
        "itself counts: its tables too,\nand each block as large as the allocator made it.\n"
    )
    text, page, account = runs[1][2:]
    if page:
        print(bold("What ashlar report says of that Redis, while it is idle:") + "\n")
        print(text)
        print(bold(f"The same as pictures, every page of it: file://{page}"))
        return
    account = account.strip()
    print(bold(f"{name}'s own account of that Redis, at its exit:") + "\n")
    print(account or f"(none: {name} wrote nothing to standard error)")


if __name__ == "__main__":
    try:
        main()
    except DemoError as error:
        sys.exit(f"script/demo: {error}")
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
