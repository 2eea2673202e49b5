"""What a run found: its file, and several files as one."""

import dataclasses
import datetime
import json
import os
import platform
import re
import subprocess

from allocators import LOOP
from errors import Refused

FORMAT = 1


@dataclasses.dataclass
class Results:
    about: dict  # when, where, which commit, which allocators
    numbers: dict  # group → row → allocator → a number a round, None where it failed
    failures: dict  # what → why

    def names(self):
        """The allocators, ours first, without the loop."""
        return [name for name in self.about["allocators"] if name != LOOP]


def describe(allocators, rounds, root):
    return {
        "date": datetime.datetime.now().astimezone().isoformat(timespec="seconds"),
        "kernel": platform.release(),
        "cpu": _cpu_model(),
        "cores": len(os.sched_getaffinity(0)),
        "load_before": os.getloadavg(),
        "commit": _commit(root),
        "conf": os.environ.get("ASHLAR_CONF", ""),
        "rounds": rounds,
        "allocators": {n: a.identity() for n, a in allocators.items() if n != LOOP},
    }


def write(results, path):
    content = {"format": FORMAT, "unit": "seconds, bytes or instructions; one number a round",
               **dataclasses.asdict(results)}
    with open(path, "w", encoding="utf-8") as file:
        json.dump(content, file, indent=1)
        file.write("\n")


def read(path):
    try:
        with open(path, encoding="utf-8") as file:
            content = json.load(file)
        if content["format"] != FORMAT:
            raise Refused(f"{path}: format {content['format']}, not {FORMAT}")
        return Results(content["about"], content["numbers"], content["failures"])
    except OSError as error:
        raise Refused(f"{path}: {error.strerror}") from None
    except (ValueError, KeyError, TypeError):
        raise Refused(f"{path}: this is no result of script/bench --json") from None


def merge(several):
    """Runs of different jobs, under the same allocators, as one. Of a row that is in two, the later
    run counts."""
    first = several[0]
    merged = Results(dict(first.about), {}, {})
    for one in several:
        if one.about["allocators"] != first.about["allocators"]:
            raise Refused("the files are of different allocators")
        merged.about["rounds"] = min(merged.about["rounds"], one.about["rounds"])
        for group, rows in one.numbers.items():
            merged.numbers.setdefault(group, {}).update(rows)
        merged.failures.update(one.failures)
    return merged


def _cpu_model():
    with open("/proc/cpuinfo", encoding="utf-8") as file:
        models = re.findall(r"^model name\s*:\s*(.*)$", file.read(), re.MULTILINE)
    return models[0] if models else platform.machine()


def _commit(root):
    try:
        done = subprocess.run(["git", "describe", "--always", "--dirty"], cwd=root,
                              capture_output=True, text=True, check=False)
    except OSError:
        return ""
    return done.stdout.strip()
