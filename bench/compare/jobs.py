"""Jobs, and the order in which they run.

A job is a process that runs under one allocator and yields one number for each of its rows. Each
job runs under all allocators before the next one begins, and who goes first rotates: what disturbs
the machine for some seconds disturbs all of them.
"""

import os
import signal
import subprocess
import sys
import time

from errors import Failed, Refused

TIMEOUT_S = 120
WRONG_MALLOC = 2  # the status of require_expected_malloc()
PROGRESS_S = 15  # between lines of progress when nobody sees a terminal
# Debian's programs, before others of the same name.
PATH = "/usr/bin:/bin:/usr/sbin:/sbin:/usr/local/bin"


class Job:
    """What --filter calls `name`."""

    def __init__(self, name):
        self.name = name

    def measure(self, allocator):
        """(group, row) → number. Raises Failed."""
        raise NotImplementedError


def environment(allocator):
    plain = {"PATH": PATH, "HOME": "/nonexistent", "LC_ALL": "C.UTF-8", "TZ": "UTC"}
    kept = {k: v for k, v in os.environ.items() if k in ("TMPDIR", "ASHLAR_CONF")}
    return plain | kept | allocator.environment()


def run_process(command, allocator, env=None, beside=None, **how):
    """Runs a command to its end and returns what it wrote. `beside(process)` runs meanwhile."""
    process = subprocess.Popen(
        command, env=environment(allocator) | (env or {}), stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        text=True, errors="replace", start_new_session=True, **how)
    try:
        if beside:
            beside(process)
        output, complaints = process.communicate(timeout=TIMEOUT_S)
    except subprocess.TimeoutExpired:
        raise Failed(f"not done after {TIMEOUT_S} s") from None
    finally:
        # Also what the command may have left behind: its session is its own.
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        process.communicate()
    check_end(process.returncode, complaints)
    return output


def check_end(code, complaints):
    """Raises what a process's exit code and its words to standard error call for."""
    said = (complaints.strip().splitlines() or [""])[-1]
    if "cannot be preloaded" in complaints or (code == WRONG_MALLOC and "malloc comes" in said):
        raise Refused(said)  # no number would mean anything
    if code != 0:
        how = f"signal {-code}" if code < 0 else f"exit {code}"
        raise Failed(f"{how} {said}".strip())


def run(jobs, allocators, rounds):
    """Group → row → allocator's name → a number for each round, None where it failed; and the
    failures, each told once."""
    numbers, failures = {}, {}
    names = list(allocators)
    progress = Progress(len(jobs) * rounds)
    for round_number in range(rounds):
        for job_number, job in enumerate(jobs):
            progress.show(f"round {round_number + 1}/{rounds}  {job.name}")
            first = (round_number + job_number) % len(names)
            for name in names[first:] + names[:first]:
                try:
                    measured = job.measure(allocators[name])
                except Failed as failure:
                    failures.setdefault(f"{job.name} under {name}", str(failure))
                    measured = {}
                for (group, row), number in measured.items():
                    by_name = numbers.setdefault(group, {}).setdefault(row, {})
                    by_name.setdefault(name, [None] * rounds)[round_number] = number
    progress.end()
    return numbers, failures


class Progress:
    """One line that changes on a terminal, or a line now and then elsewhere."""

    def __init__(self, steps):
        self._steps, self._done = steps, 0
        self._start_s = time.monotonic()
        self._shown_s = -PROGRESS_S

    def show(self, text):
        elapsed_s = time.monotonic() - self._start_s
        left = f", {elapsed_s / self._done * (self._steps - self._done):.0f} s left" \
            if self._done else ""
        line = f"{self._done}/{self._steps}  {elapsed_s:.0f} s{left}  {text}"
        self._done += 1
        if sys.stderr.isatty():
            print(f"\r\033[K{line}", end="", file=sys.stderr, flush=True)
        elif elapsed_s - self._shown_s >= PROGRESS_S:
            self._shown_s = elapsed_s
            print(line, file=sys.stderr, flush=True)

    def end(self):
        if sys.stderr.isatty():
            print("\r\033[K", end="", file=sys.stderr, flush=True)
