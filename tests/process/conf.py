#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""ASHLAR_CONF: what is not understood gives one warning each, and the program runs all the same.

    conf.py LIBRARY
"""

import os
import subprocess
import sys

# What ASHLAR_CONF says, and what each warning must mention, in order.
CASES = [
    (None, []),
    ("", []),
    (",", []),
    (",,", []),
    ("purge_ms:500", []),
    ("purge_ms:500,purge_ms:600,", []),
    ("nonsense:1", ["nonsense"]),
    ("nonsense", ["nonsense"]),
    (":1", [":1"]),
    ("purge_ms", ["purge_ms"]),
    ("purge_ms:", ["purge_ms"]),
    ("purge_ms:abc", ["purge_ms"]),
    ("purge_ms:5x", ["purge_ms"]),
    ("purge_ms:99999999999999999999999999", ["purge_ms"]),
    ("purge_ms:500,nonsense:1", ["nonsense"]),
    ("nonsense:1,purge_ms:abc", ["nonsense", "purge_ms"]),
    ("exit_report:poem", ["exit_report"]),
    ("x" * 5000, ["x"]),
    ("x:" + "y" * 5000, ["x"]),
    ("purge_ms:" + "9" * 5000, ["purge_ms"]),
    ("\x01\x02\xff:%s%n%d", ["%s%n%d"]),
]


def complaint(library, text, mentions):
    """What is wrong with how a program ran under ASHLAR_CONF=text, or nothing."""
    environment = {name: value for name, value in os.environ.items() if name != "ASHLAR_CONF"} | {
        "LD_PRELOAD": library
    }
    if text is not None:
        environment["ASHLAR_CONF"] = text
    done = subprocess.run(
        ["/bin/echo", "spoken"], env=environment, capture_output=True, timeout=20, check=False
    )
    warnings = [line.decode(errors="surrogateescape") for line in done.stderr.splitlines()]
    if (done.returncode, done.stdout) != (0, b"spoken\n"):
        return f"expected the program to run, seen exit code {done.returncode} and {done.stdout!r}"
    if len(warnings) != len(mentions):
        return f"expected {len(mentions)} warnings, seen {warnings}"
    for warning, mention in zip(warnings, mentions):
        if not warning.startswith("ashlar: ") or mention not in warning or len(warning) > 300:
            return f"expected a short line 'ashlar: …{mention}…', seen {warning[:400]!r}"
    return None


def silence(library):
    """What is wrong with the exit report of a program that closes stderr before it ends, or nothing."""
    for kind, beginning in (("text", "\nashlar "), ("json", '{"schema"')):
        done = subprocess.run(
            ["/bin/sort", "/dev/null"],
            env={**os.environ, "LD_PRELOAD": library, "ASHLAR_CONF": f"exit_report:{kind}"},
            capture_output=True,
            text=True,
            timeout=20,
        )
        if done.returncode != 0 or not done.stderr.startswith(beginning):
            return f"{kind}: expected {beginning!r}…, seen {done.returncode}, {done.stderr[:400]!r}"
    return None


def main():
    if len(sys.argv) != 2 or not os.path.exists(sys.argv[1]):
        sys.exit("usage: conf.py LIBRARY")
    failures = 0
    for text, mentions in CASES:
        wrong = complaint(os.path.abspath(sys.argv[1]), text, mentions)
        failures += bool(wrong)
        if wrong:
            print(f"ASHLAR_CONF={text if text is None else ascii(text[:60])}: {wrong}")
    wrong = silence(os.path.abspath(sys.argv[1]))
    failures += bool(wrong)
    if wrong:
        print(f"exit report of sort: {wrong}")
    print(f"conf: {len(CASES) + 1} cases, {failures} failed")
    sys.exit(1 if failures else 0)


main()
