"""Jobs of whole programs: ours from bench/programs, and Debian's at the work in bench/work.

Of each, CPU time (user and system) and peak RSS are measured, its children included, as the kernel
counts them: see bench/launch.c.
"""

import os
import subprocess
import time

from allocators import LOOP
from errors import Failed
from jobs import PATH, Job, check_end, run_process

WORK = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "work")
OUR_PROGRAMS = (
    "short_lived", "trees", "table", "server", "producer_consumer", "false_sharing active",
    "false_sharing passive", "thread_storm exit", "thread_storm leak", "grow", "large_blocks")


class ProgramJob(Job):
    """A command that runs to its end in `directory`; `given` is the path of its standard input."""

    def __init__(self, name, launcher, command, directory, given=os.devnull, env=None):
        super().__init__("programs/" + name)
        self._row, self._launcher, self._command = name, launcher, command
        self._directory, self._given, self._env = directory, given, env or {}

    def prepare(self):
        """Makes what the command needs; called before each run."""

    def beside(self, process):
        """Runs while the command does."""

    def measure(self, allocator):
        if allocator.name == LOOP:
            return {}
        self.prepare()
        reader, writer = os.pipe()
        with open(reader, encoding="ascii") as report, open(self._given, "rb") as given:
            try:
                run_process([self._launcher, str(writer), *self._command], allocator,
                            env=self._env, beside=self.beside, pass_fds=(writer,),
                            cwd=self._directory, stdin=given)
            finally:
                os.close(writer)
            user_us, system_us, peak_kib = map(int, report.read().split())
        return {("cpu", self._row): (user_us + system_us) / 1e6,
                ("peak", self._row): peak_kib * 1024}


class CompilerJob(ProgramJob):
    """g++ on a large file, preprocessed once, so that the headers' lookup is no part of it."""

    def __init__(self, launcher, directory):
        self._source = os.path.join(directory, "big.ii")
        super().__init__("gcc", launcher,
                         ["g++", "-std=c++20", "-fpreprocessed", "-S", "-o", os.devnull,
                          self._source], directory)

    def prepare(self):
        if not os.path.exists(self._source):
            _run_beside(["g++", "-std=c++20", "-E", "-x", "c++", "-o", self._source, "-"],
                        given=_cpp_source())


class RedisJob(ProgramJob):
    """redis-server, filled, read and thinned out by redis-benchmark, which runs on the C library
    and is not counted."""

    KINDS = "set,get,incr,lpush,rpop,sadd,hset,zadd,mset"

    def __init__(self, launcher, directory):
        self._socket = os.path.join(directory, "redis")
        super().__init__("redis", launcher,
                         ["redis-server", "--port", "0", "--unixsocket", self._socket, "--save", ""],
                         directory)

    def beside(self, process):
        deadline_s = time.monotonic() + 20
        while not os.path.exists(self._socket):
            if process.poll() is not None or time.monotonic() > deadline_s:
                raise Failed("redis-server does not start")
            time.sleep(0.01)
        _run_beside(["redis-benchmark", "-s", self._socket, "-t", self.KINDS, "-n", "100000",
                     "-r", "50000", "-d", "300", "-P", "16", "-q"])
        _run_beside(["redis-cli", "-s", self._socket, "shutdown", "nosave"])


def all_jobs(binaries, directory):
    """Of the programs under `binaries`; `directory` is for what the jobs write."""
    launcher = os.path.join(binaries, "launch")

    def debian(name, command, given=os.devnull, env=None):
        return ProgramJob(name, launcher, command, directory, given, env)

    def work(name):
        return os.path.join(WORK, name)

    ours = []
    for program in OUR_PROGRAMS:
        file, *arguments = program.split()
        command = [os.path.join(binaries, "programs", file), *arguments]
        ours.append(ProgramJob(program.replace(" ", "_"), launcher, command, directory))
    return ours + [
        debian("python3", ["/usr/bin/python3", work("python.py")],
               env={"PYTHONMALLOC": "malloc", "PYTHONHASHSEED": "0"}),
        debian("perl", ["perl", work("perl.pl")], env={"PERL_HASH_SEED": "0"}),
        debian("lua", ["lua5.4", work("lua.lua")]),
        debian("node", ["node", work("node.js")]),
        debian("sqlite3", ["sqlite3", ":memory:"], given=work("sqlite.sql")),
        CompilerJob(launcher, directory),
        RedisJob(launcher, directory),
        debian("ghostscript", ["gs", "-q", "-dBATCH", "-dNOPAUSE", "-sDEVICE=pdfwrite",
                               "-o", os.path.join(directory, "document.pdf"),
                               work("document.ps")]),
    ]


def _run_beside(command, given=""):
    """Runs a command on the C library, which nobody measures."""
    try:
        done = subprocess.run(command, input=given, capture_output=True, text=True, check=False,
                              timeout=60, env={"PATH": PATH, "LC_ALL": "C.UTF-8"})
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Failed(f"{command[0]}: {error}") from None
    check_end(done.returncode, done.stderr)


def _cpp_source():
    """Headers that are heavy on templates, and uses of them."""
    headers = "algorithm functional map memory regex set string tuple unordered_map variant vector"
    lines = [f"#include <{header}>" for header in headers.split()]
    for i in range(8):
        lines.append(f"""
struct T{i} {{ int key = {i}; std::string name; std::vector<double> values; }};
int use{i}(std::map<std::string, T{i}>& table, std::vector<std::function<int(int)>>& calls) {{
  std::variant<int, std::string, T{i}> v = T{i}{{}};
  std::unordered_map<int, std::unique_ptr<T{i}>> index;
  std::sort(calls.begin(), calls.end(), [](auto& a, auto& b) {{ return a({i}) < b({i}); }});
  for (auto& [name, entry] : table) index[entry.key] = std::make_unique<T{i}>(entry);
  return std::visit([](auto const& x) {{ return int(sizeof x); }}, v) + int(index.size());
}}""")
    return "\n".join(lines) + "\n"
