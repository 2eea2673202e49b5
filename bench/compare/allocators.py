"""Which allocators are compared, and how a program comes to run on one."""

import dataclasses
import glob
import hashlib
import os
import re
import subprocess

from errors import Refused

OURS = "ashlar"
LOOP = "loop"  # not an allocator: the micro rows with functions that do nothing
C_LIBRARY = "glibc"
DEBIAN_PEERS = {
    "jemalloc": "/usr/lib/*-linux-gnu*/libjemalloc.so.2",
    "mimalloc": "/usr/lib/*-linux-gnu*/libmimalloc.so.2*",
}


@dataclasses.dataclass(frozen=True)
class Allocator:
    name: str
    path: str | None  # of the library to preload; None: the C library's own

    def environment(self):
        """What a child is to have in its environment to run on this allocator."""
        if self.path:
            # The name as the loader sees it: a link is not resolved.
            return {"LD_PRELOAD": self.path, "ASHLAR_BENCH_EXPECT": os.path.basename(self.path)}
        # Named first, for programs that are linked with a malloc, as Debian's Redis is.
        chosen = {"LD_PRELOAD": "libc.so.6", "ASHLAR_BENCH_EXPECT": "libc.so"}
        return chosen | ({"ASHLAR_BENCH_LOOP": "1"} if self.name == LOOP else {})

    def identity(self):
        """What tells this build of the allocator from others."""
        if self.path is None:
            return {"version": os.confstr("CS_GNU_LIBC_VERSION")}
        real = os.path.realpath(self.path)
        with open(real, "rb") as file:
            digest = hashlib.sha256(file.read()).hexdigest()
        package = _output("dpkg-query", "-S", real).partition(": ")[0]
        version = package and _output("dpkg-query", "-W", "-f", "${Package} ${Version}", package)
        return {"path": self.path, "file": os.path.basename(real), "sha256": digest,
                "version": version}


def choose(arguments, our_path):
    """Name → Allocator, ours first, from the words of the command line."""
    paths = {}
    for argument in arguments:
        name, equals, path = argument.partition("=")
        if name == LOOP:
            raise Refused("loop is no allocator; --loop shows it")
        if equals:
            paths[name] = path
        elif name == C_LIBRARY:
            paths[name] = None
        elif name in DEBIAN_PEERS:
            paths[name] = _installed(name)
            if paths[name] is None:
                raise Refused(f"{name} is not installed")
        elif name != OURS:
            known = " ".join([C_LIBRARY, *DEBIAN_PEERS])
            raise Refused(f"no allocator '{name}'; known by name: {known}; others: {name}=PATH.so")
    if not set(paths) - {OURS}:
        found = {name: _installed(name) for name in DEBIAN_PEERS}
        paths = {C_LIBRARY: None} | {name: path for name, path in found.items() if path} | paths
    ours = paths.pop(OURS, our_path)
    return {name: _checked(name, path) for name, path in ({OURS: ours} | paths).items()}


def _installed(name):
    return min(glob.glob(DEBIAN_PEERS[name]), default=None)


def _checked(name, path):
    if path is None:
        return Allocator(name, None)
    path = os.path.abspath(path)
    if not os.path.isfile(path):
        raise Refused(f"{name}: no such file: {path}")
    if re.search(r"[\s:]", path):
        raise Refused(f"{name}: the loader splits LD_PRELOAD at spaces and colons: {path}")
    return Allocator(name, path)


def _output(*command):
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError:
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
