#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Turns a file into a C++ string:  embed.py INPUT OUTPUT NAME"""

import pathlib
import sys

source, target, name = sys.argv[1:]
content = pathlib.Path(source).read_bytes()
numbers = ",".join(str(byte) for byte in content)
pathlib.Path(target).write_text(
    "#include <string_view>\n"
    "namespace ashlar::frag {\n"
    f"extern const std::string_view {name};\n"
    f"static constexpr unsigned char kBytes[] = {{{numbers}}};\n"
    f"const std::string_view {name}(reinterpret_cast<const char*>(kBytes), sizeof kBytes);\n"
    "}\n"
)
