# SPDX-License-Identifier: MIT
"""Subjects: programs that run on the library while the tool looks at them, and what it says."""

import contextlib
import json
import os
import subprocess

SECONDS = 60


class Tool:
    """The command under test."""

    def __init__(self, path):
        self.path = path

    def run(self, *arguments, expect=None, env=None):
        """Runs the command; the exit code must be one of `expect` (0 or 1 without)."""
        done = subprocess.run(
            [self.path, *map(str, arguments)],
            capture_output=True,
            text=True,
            timeout=SECONDS,
            stdin=subprocess.DEVNULL,
            env={**os.environ, **(env or {})},
        )
        allowed = (0, 1) if expect is None else (expect,)
        assert done.returncode in allowed, (
            f"{arguments}: exit code {done.returncode}, expected {allowed}\n{done.stdout}{done.stderr}"
        )
        return done

    def json(self, *arguments, **how):
        return json.loads(self.run(*arguments, "--json", **how).stdout)


class Subject:
    """A program that says "ready" when its heap is what it is meant to be."""

    def __init__(self, command, library=None, conf=""):
        preload = {"LD_PRELOAD": str(library)} if library else {}
        self.process = subprocess.Popen(
            [str(word) for word in command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, **preload, "ASHLAR_CONF": conf},
        )
        self.pid = self.process.pid
        line = self.process.stdout.readline()
        assert line == "ready\n", f"{command[0]} said {line!r}"

    def tell(self, word):
        """Sends a line and waits for the answer."""
        self.process.stdin.write(word + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        assert line == "done\n", f"to {word!r} it said {line!r}"

    def end(self):
        self.process.stdin.close()
        self.process.stdout.close()
        try:
            return self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise


@contextlib.contextmanager
def subject(command, library=None, conf=""):
    one = Subject(command, library, conf)
    try:
        yield one
    finally:
        one.end()


def slot_bytes(size):
    """The slot that a request of `size` bytes gets: allocator/size_class.h, told again."""
    slot = 0
    while slot < size:
        doubling = 1 << (slot.bit_length() - 1) if slot else 0
        slot += 16 if slot < 128 else doubling // 8 if slot < 1024 else doubling // 4
    return slot


def run_tests(tests):
    """Runs functions whose docstring is a sentence; returns how many failed."""
    failed = 0
    for test in tests:
        try:
            test()
        except Exception as problem:  # the next one shall run, whatever happened
            failed += 1
            print(f"FAILED: {test.__doc__}\n  {type(problem).__name__}: {problem}")
        else:
            print(f"ok: {test.__doc__}")
    return failed
