#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""What the shared library needs and what it shows.

    exports.py LIBRARY

It needs libc.so.6 and nothing else; it shows the malloc family, jemalloc's own, the C++ operators
and ashlar_* only, none of them missing; and its thread-local memory is small enough for dlopen.
"""

import re
import subprocess
import sys

TLS_BYTES = 128

MALLOC = """malloc free calloc realloc reallocarray posix_memalign aligned_alloc memalign valloc
pvalloc malloc_usable_size free_sized free_aligned_sized malloc_trim mallopt mallinfo mallinfo2
malloc_info malloc_stats cfree __libc_malloc __libc_free __libc_calloc __libc_realloc
__libc_memalign __libc_valloc __libc_pvalloc __posix_memalign""".split()

MALLOC += """mallctl mallctlnametomib mallctlbymib malloc_stats_print nallocx mallocx rallocx xallocx
sallocx dallocx sdallocx""".split()

MALLOC += ["dlopen"]  # without RTLD_DEEPBIND, which would lead past it

ALLOWED_TOO = ["__libc_reallocarray", "__libc_cfree", "__libc_mallopt", "__libc_mallinfo"]

OPERATORS = [
    f"_Z{kind}{form}"
    for kind in ("nw", "na")
    for form in ("m", "mRKSt9nothrow_t", "mSt11align_val_t", "mSt11align_val_tRKSt9nothrow_t")
]
OPERATORS += [
    f"_Z{kind}Pv{form}"
    for kind in ("dl", "da")
    for form in (
        "",
        "m",
        "RKSt9nothrow_t",
        "St11align_val_t",
        "mSt11align_val_t",
        "St11align_val_tRKSt9nothrow_t",
    )
]


def output(*command):
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def mistakes(library):
    """What is not as it should be, a sentence each."""
    dynamic = output("readelf", "-dW", library)
    needed = re.findall(r"\(NEEDED\).*\[(.*)\]", dynamic)
    if needed != ["libc.so.6"]:
        yield f"expected libc.so.6 as the only NEEDED, seen {needed}"
    if not re.search(r"\(SONAME\).*\[libashlar\.so\.\d+\]", dynamic):
        yield f"expected a SONAME like libashlar.so.0, seen {re.findall('SONAME.*', dynamic)}"
    if not re.search(r"\bNODELETE\b", dynamic):
        yield "expected the flag NODELETE, as threads hold its memory when a handle is closed"
    if "TEXTREL" in dynamic:
        yield "expected no relocations of code"

    shown = {
        line.split()[-1].split("@")[0]
        for line in output("nm", "-D", "--defined-only", library).splitlines()
        if line.split()[-2] != "A"
    }
    public = {name for name in shown if name.startswith("ashlar_")}
    strange = shown - public - set(MALLOC + OPERATORS + ALLOWED_TOO)
    if strange:
        yield f"expected to show malloc, operators and ashlar_* only, seen {sorted(strange)}"
    missing = set(MALLOC + OPERATORS) - shown
    if missing:
        yield f"expected every door to be there, missing {sorted(missing)}"

    undefined = [
        line.split() for line in output("nm", "-D", "--undefined-only", library).splitlines()
    ]
    foreign = [
        name
        for *_, kind, name in undefined
        if kind == "U" and "@GLIBC_" not in name and name not in OPERATORS
    ]
    if foreign:
        yield f"expected to need symbols of the C library only (others weak), seen {foreign}"

    sizes = [
        int(row.split()[5], 16)
        for row in output("readelf", "-lW", library).splitlines()
        if row.split()[:1] == ["TLS"]
    ]
    if len(sizes) > 1 or sum(sizes) > TLS_BYTES:
        yield f"expected at most {TLS_BYTES} bytes of thread-local memory, seen {sizes}"
    if not sizes:
        yield "expected a TLS segment, seen none: is this the allocator?"


def main():
    if len(sys.argv) != 2:
        sys.exit("usage: exports.py LIBRARY")
    found = list(mistakes(sys.argv[1]))
    for mistake in found:
        print(mistake)
    print(f"exports: {len(found)} mistakes")
    sys.exit(1 if found else 0)


main()
