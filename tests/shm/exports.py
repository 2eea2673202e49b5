# SPDX-License-Identifier: MIT
"""libashlar_shm needs the C library alone, shows what <ashlar/shm.h> declares and nothing else.

    exports.py LIBRARY HEADER
"""
import re
import subprocess
import sys

TLS_BYTES = 64


def output(*command):
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


library, header = sys.argv[1:]
needed = re.findall(r"\(NEEDED\).*\[(.*)\]", output("readelf", "-dW", library))
assert needed == ["libc.so.6"], needed
shown = {
    line.split()[-1].split("@")[0]
    for line in output("nm", "-D", "--defined-only", library).splitlines()
}
declared = set(re.findall(r"\b(ashlar_shm_\w+)\(", open(header).read()))
assert shown == declared, (shown - declared, declared - shown)
strange = [
    line
    for line in output("nm", "-D", "--undefined-only", library).splitlines()
    if line.split()[-2] == "U" and "@GLIBC_" not in line
]
assert not strange, strange
sizes = [
    int(row.split()[5], 16)
    for row in output("readelf", "-lW", library).splitlines()
    if row.split()[:1] == ["TLS"]
]
assert sum(sizes) <= TLS_BYTES, sizes
