# SPDX-License-Identifier: MIT
"""A Stage: a temporary directory and an environment to run commands in, with or without a preload."""

import pathlib
import shutil
import signal
import subprocess
import time

SECONDS = 100  # for any one command


class Missing(Exception):
    """A program that is not installed."""


class Failed(Exception):
    """A program that did not do its work at all."""


class Stage:
    """A temporary directory and an environment to run commands in, with or without the library."""

    def __init__(self, library, directory):
        self.library = library
        self.directory = pathlib.Path(directory)
        self.user = None
        self.environment = {
            "PATH": "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin",
            "HOME": str(directory),
            "LC_ALL": "C.UTF-8",
            "TZ": "UTC",
        }

    def find(self, *names):
        """The path of the first command that is installed; Debian's before any other."""
        for name in names:
            found = shutil.which(name, path=self.environment["PATH"])
            if found:
                return found
        raise Missing(" or ".join(names))

    def settings(self, env=None):
        preload = {"LD_PRELOAD": str(self.library)} if self.library else {}
        settings = {"env": {**self.environment, **preload, **(env or {})}, "cwd": self.directory}
        if self.user:
            settings |= {"user": self.user, "group": self.user, "extra_groups": []}
        return settings

    def run(self, *command, given="", env=None):
        """Runs a command to its end and returns what it wrote; an exit code but 0 is a failure."""
        done = subprocess.run(
            [str(word) for word in command],
            input=given.encode(),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            timeout=SECONDS,
            **self.settings(env),
        )
        errors = done.stderr.decode(errors="replace")
        if done.returncode != 0:
            raise Failed(f"{command[0]} exited with {done.returncode}: {errors[-600:]}")
        if "cannot be preloaded" in errors:
            raise Failed(f"{command[0]}: {errors[:200]}")
        return done.stdout

    def start(self, *command):
        """Starts a server and returns its process, which has the library mapped."""
        log = open(self.directory / "log", "ab")
        server = subprocess.Popen(
            [str(word) for word in command],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            **self.settings(),
        )
        log.close()
        return server

    def wait_for(self, ready, server):
        """Waits until `ready()` is true; the library must then be in the server's memory."""
        deadline = time.monotonic() + 30
        while not ready():
            if server.poll() is not None or time.monotonic() > deadline:
                raise Failed(
                    f"the server did not come up (exit code {server.poll()}): "
                    f"{(self.directory / 'log').read_text()[-600:]}"
                )
            time.sleep(0.02)
        self.expect_mapped(server.pid)

    def expect_mapped(self, pid):
        if self.library and str(self.library) not in pathlib.Path(f"/proc/{pid}/maps").read_text():
            raise Failed(f"process {pid} runs without the library")

    def write(self, name, text):
        path = self.directory / name
        path.write_text(text)
        return path


def quietly(*command):
    """Runs a command without the library, for its exit code alone."""
    return subprocess.run(
        [str(word) for word in command],
        check=False,
        timeout=SECONDS,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ).returncode


def end(server, how=signal.SIGTERM):
    """Asks a server to end and returns its exit code."""
    server.send_signal(how)
    try:
        return server.wait(20)
    except subprocess.TimeoutExpired:
        server.kill()
        raise Failed("the server did not end within 20 s")
