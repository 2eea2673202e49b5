# SPDX-License-Identifier: MIT
"""launch, hit-path and latency: that they count what they say.

tools.py LAUNCH HIT_PATH LATENCY COUNTED_MALLOC
"""

import os
import subprocess
import sys
import unittest

LAUNCH, HIT_PATH, LATENCY, COUNTED_MALLOC = (os.path.abspath(path) for path in sys.argv[1:5])
MIB = 1 << 20


def launch(*command):
    """What launch wrote: user and system seconds and peak bytes; and its exit status."""
    reader, writer = os.pipe()
    done = subprocess.run([LAUNCH, str(writer), *command], pass_fds=(writer,), check=False,
                          capture_output=True, text=True, timeout=60)
    os.close(writer)
    with open(reader) as report:
        user_us, system_us, peak_kib = map(int, report.read().split())
    return user_us / 1e6, system_us / 1e6, peak_kib * 1024, done


class Launch(unittest.TestCase):
    def test_the_memory_of_whoever_starts_it_is_not_counted(self):
        held = bytearray(b"x") * (200 * MIB)
        self.assertLess(launch("true")[2], 20 * MIB)
        self.assertEqual(len(held), 200 * MIB)

    def test_the_peak_is_counted_though_it_is_over_and_a_grandchilds(self):
        program = f"{sys.executable} -c 'x = bytearray(b\"x\") * (100 << 20); del x'; true"
        self.assertGreater(launch("sh", "-c", program)[2], 100 * MIB)

    def test_time_is_no_less_than_the_child_itself_counted(self):
        program = "import time\nwhile time.process_time() < 0.2: pass\nprint(time.process_time())"
        user_s, system_s, _, done = launch(sys.executable, "-c", program)
        self.assertGreaterEqual(user_s + system_s, float(done.stdout) - 0.001)

    def test_the_status_is_the_commands_and_a_signal_is_told(self):
        self.assertEqual(launch("sh", "-c", "exit 7")[3].returncode, 7)
        self.assertEqual(launch("sh", "-c", "kill -9 $$")[3].returncode, 128 + 9)

    def test_a_command_that_does_not_exist_is_an_error_in_words(self):
        done = subprocess.run([LAUNCH, "1", "/no/such"], check=False, capture_output=True, text=True)
        self.assertEqual(done.returncode, 2)
        self.assertIn("/no/such: No such file", done.stderr)


def rows(program, preload=None, expect=None):
    environment = {"LD_PRELOAD": preload, "ASHLAR_BENCH_EXPECT": expect}
    done = subprocess.run([program], check=False, capture_output=True, text=True, timeout=100,
                          env={k: v for k, v in environment.items() if v})
    return done, {row: float(n) for row, n in map(str.split, done.stdout.splitlines())}


class HitPath(unittest.TestCase):
    def test_instructions_are_counted_from_the_first_to_the_return(self):
        done, counts = rows(HIT_PATH, COUNTED_MALLOC, "counted_malloc")
        if "ptrace" in done.stderr:
            self.skipTest("ptrace is not allowed here")
        for size in ("64", "4K"):
            self.assertEqual((counts[f"malloc/{size}"], counts[f"free/{size}"]), (6, 1))
            # libstdc++'s: a few instructions of its own, then ours
            self.assertGreater(counts[f"new/{size}"], 6)
            self.assertGreater(counts[f"delete/{size}"], 1)

    def test_another_malloc_than_the_expected_one_ends_it_with_status_2(self):
        done, _ = rows(HIT_PATH, None, "counted_malloc")
        self.assertEqual(done.returncode, 2)
        self.assertIn("malloc comes from", done.stderr)


class Latency(unittest.TestCase):
    def test_quantiles_ascend_and_most_calls_are_shorter_than_the_longest(self):
        done, times = rows(LATENCY)
        self.assertEqual(done.returncode, 0, done.stderr)
        for function in ("malloc", "free"):
            quantiles = [times[f"{function}/{part}"] for part in ("p50", "p99", "p99.9", "max")]
            self.assertEqual(quantiles, sorted(quantiles))
            self.assertGreater(quantiles[3], quantiles[0])


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1])
