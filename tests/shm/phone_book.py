# SPDX-License-Identifier: MIT
"""Runs the example of shm_arena/README.md: two writers and a reader that know nothing of each other."""
import os
import subprocess
import sys

program, readme, source = map(os.path.abspath, sys.argv[1:])


def run(*arguments):
    return subprocess.run([program, *arguments], capture_output=True, text=True, timeout=20, check=True).stdout


segment = "/dev/shm/phone-book"
if os.path.exists(segment):
    sys.exit(77)  # somebody's
long_name = "a name that is too long to lie inside a string"
try:
    run("bob", "456")
    run("alice", "123")
    run(long_name, "789")
    run("bob", "654")
    found = run()
finally:
    if os.path.exists(segment):
        os.unlink(segment)
assert found == f"{long_name}: 789\nalice: 123\nbob: 654\n", found

example = open(readme).read().split("```cpp\n")[1].split("```")[0]
assert open(source).read().endswith(example), "the README's example is not the one that is tested"
assert example.count("\n") < 30
