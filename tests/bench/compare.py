# SPDX-License-Identifier: MIT
"""bench/compare: its arithmetic, its tables, its files."""

import os
import pathlib
import sys
import tempfile
import unittest
import xml.etree.ElementTree

sys.path.insert(0, str(pathlib.Path(__file__).parents[2] / "bench" / "compare"))

import allocators  # noqa: E402
import drift  # noqa: E402
import figures  # noqa: E402
import jobs  # noqa: E402
import plot  # noqa: E402
import results  # noqa: E402
import tables  # noqa: E402
from errors import Failed, Refused  # noqa: E402


def made(numbers, names=("ashlar", "a", "b"), failures=None):
    about = {
        "cpu": "a processor", "cores": 2, "kernel": "6", "rounds": 3, "commit": "c", "date": "d", "conf": "",
        "allocators": {name: {"version": "1", "sha256": "of " + name} for name in names},
    }
    return results.Results(about, numbers, failures or {})


class Figures(unittest.TestCase):
    def test_a_figure_is_the_median_between_least_and_most(self):
        figure = figures.Figure([5, 1, 3])
        self.assertEqual((figure.least, figure.median, figure.most), (1, 3, 5))
        self.assertEqual(figures.Figure([4, 1, 2, 3]).median, 2.5)

    def test_rounds_far_apart_are_noisy_and_near_ones_are_not(self):
        self.assertTrue(figures.Figure([100, 100, 131]).noisy)
        self.assertFalse(figures.Figure([100, 100, 130]).noisy)
        self.assertFalse(figures.Figure([0, 0]).noisy)

    def test_a_row_with_a_failed_round_has_no_figure(self):
        self.assertEqual(list(figures.figures_of({"a": [1, None], "b": [1, 2], "c": []})), ["b"])
        with self.assertRaises(ValueError):
            figures.Figure([1, None])

    def test_a_ratio_is_ours_to_theirs_and_unknown_beside_a_zero(self):
        one, two, zero = (figures.Figure([n]) for n in (1, 2, 0))
        self.assertEqual(figures.ratio(one, two), 0.5)
        self.assertEqual(figures.ratio(zero, zero), 1)
        self.assertIsNone(figures.ratio(zero, one))
        self.assertIsNone(figures.ratio(one, zero))
        self.assertIsNone(figures.ratio(None, one))

    def test_the_best_peer_has_the_lowest_median_not_the_lowest_round(self):
        row = figures.figures_of({"a": [1, 9, 9], "b": [5, 5, 5]})
        self.assertEqual(figures.best_of(row), "b")
        self.assertIsNone(figures.best_of({}))

    def test_a_geometric_mean_of_a_ratio_and_its_inverse_is_one(self):
        self.assertAlmostEqual(figures.geometric_mean([0.25, 4, None]), 1)
        self.assertIsNone(figures.geometric_mean([None]))


class Tables(unittest.TestCase):
    numbers = {"cpu": {"slow": {"ashlar": [3, 3, 3], "a": [2, 2, 2], "b": [1, 1, 1]},
                       "fast": {"ashlar": [1, 1, 1], "a": [2, 2, 2], "b": [3, 3, 3]},
                       "torn": {"ashlar": [1, None, 1], "a": [2, 2, 2], "b": [None] * 3}}}

    def test_rows_behind_their_best_peer_are_listed_worst_first(self):
        numbers = {"cpu": {**self.numbers["cpu"],
                           "near": {"ashlar": [104] * 3, "a": [100] * 3, "b": [100] * 3},
                           "late": {"ashlar": [2] * 3, "a": [1] * 3, "b": [9] * 3}}}
        self.assertEqual(tables.behind(made(numbers)),
                         [(3, "cpu", "slow", "b"), (2, "cpu", "late", "a")])

    def test_the_mean_over_rows_leaves_failed_ones_out(self):
        text = "\n".join(tables.lines(made(self.numbers)))
        mean = next(line for line in text.splitlines() if line.startswith(tables.MEAN)).split()
        # to a: 3/2 and 1/2; to b: 3/1 and 1/3; to the best of each row: 3/1 and 1/2
        self.assertEqual(mean[2:], ["0.87", "1.00", "1.22"])
        torn = next(line for line in text.splitlines() if line.startswith("torn"))
        self.assertIn("failed", torn)

    def test_numbers_are_shown_with_three_digits_in_the_unit_that_suits(self):
        for number, shown in ((2.4561e-9, "2.46 ns"), (999.4e-9, "999 ns"), (999.6e-9, "1.00 µs"),
                              (0.0412, "41.2 ms"), (12.34, "12.3 s"), (0, "0 ns")):
            self.assertEqual(tables.show(number, tables.TIME), shown)
        self.assertEqual(tables.show(19, tables.GROUPS["instructions"].units), "19")
        self.assertEqual(tables.show(100 << 20, tables.GROUPS["peak"].units), "100 MiB")

    def test_the_picture_is_xml_with_a_dot_for_each_known_ratio(self):
        picture = plot.svg(made(self.numbers | {"peak": {"<&>": {"ashlar": [1], "a": [99]}}}))
        root = xml.etree.ElementTree.fromstring(picture)
        titles = [element.text for element in root.iter("{http://www.w3.org/2000/svg}title")]
        self.assertEqual(titles, ["slow: a 0.67", "slow: b 0.33", "fast: a 2.00", "fast: b 3.00",
                                  "<&>: a 99.00"])


class Files(unittest.TestCase):
    def test_what_is_written_is_read_again(self):
        before = made({"cpu": {"row": {"ashlar": [1, None], "a": [0.1, 2]}}}, failures={"x": "y"})
        with tempfile.TemporaryDirectory() as directory:
            path = os.path.join(directory, "file")
            results.write(before, path)
            self.assertEqual(results.read(path), before)

    def test_a_file_that_is_no_result_is_refused(self):
        with tempfile.TemporaryDirectory() as directory:
            path = os.path.join(directory, "file")
            for content in ("", "[]", "{}", '{"format": 0}', '{"format": 1}'):
                pathlib.Path(path).write_text(content)
                with self.assertRaises(Refused):
                    results.read(path)
            with self.assertRaises(Refused):
                results.read(os.path.join(directory, "absent"))

    def test_merged_files_hold_the_rows_of_both_and_the_later_of_a_row_in_two(self):
        one = made({"cpu": {"x": {"a": [1]}, "y": {"a": [1]}}})
        two = made({"cpu": {"y": {"a": [2]}}, "peak": {"x": {"a": [3]}}})
        self.assertEqual(results.merge([one, two]).numbers,
                         {"cpu": {"x": {"a": [1]}, "y": {"a": [2]}}, "peak": {"x": {"a": [3]}}})
        with self.assertRaises(Refused):
            results.merge([one, made({}, names=("ashlar", "other"))])


class Drift(unittest.TestCase):
    def test_what_peers_and_ours_have_in_common_is_no_change(self):
        old = {"ashlar": [1], "a": [1], "b": [2]}
        new = {"ashlar": [3], "a": [2], "b": [4]}
        ours, machine = drift.change(old, new, ["a", "b"])
        self.assertAlmostEqual(ours, 1.5)
        self.assertAlmostEqual(machine, 2)

    def test_without_a_common_peer_the_change_is_the_plain_ratio(self):
        self.assertEqual(drift.change({"ashlar": [2]}, {"ashlar": [1]}, []), (0.5, 1))

    def test_a_peer_of_another_build_does_not_count(self):
        old, new = made({}), made({})
        new.about["allocators"]["a"]["sha256"] = "another"
        self.assertEqual(drift.common_peers(old, new), ["b"])

    def test_files_without_a_common_row_are_refused(self):
        with self.assertRaises(Refused):
            drift.lines(made({"cpu": {"x": {}}}), made({"cpu": {"y": {}}}))


class Rotating(jobs.Job):
    """Notes who is measured; fails under b."""

    def __init__(self):
        super().__init__("a job")
        self.seen = []

    def measure(self, allocator):
        self.seen.append(allocator.name)
        if allocator.name == "b":
            raise Failed("as meant")
        return {("cpu", "row"): len(self.seen)}


class Running(unittest.TestCase):
    def test_whoever_goes_first_rotates_and_a_failure_stops_nobody_else(self):
        job = Rotating()
        known = {name: allocators.Allocator(name, None) for name in ("ashlar", "a", "b")}
        numbers, failures = jobs.run([job], known, 3)
        self.assertEqual("".join(name[0] for name in job.seen), "aab" "aba" "baa")
        self.assertEqual(job.seen[::3], ["ashlar", "a", "b"])
        self.assertEqual(numbers, {"cpu": {"row": {"ashlar": [1, 6, 8], "a": [2, 4, 9]}}})
        self.assertEqual(failures, {"a job under b": "as meant"})

    def test_a_process_that_fails_says_why(self):
        here = allocators.Allocator("glibc", None)
        with self.assertRaisesRegex(Failed, "exit 3 alas"):
            jobs.run_process(["sh", "-c", "echo alas >&2; exit 3"], here)
        with self.assertRaisesRegex(Failed, "signal 9"):
            jobs.run_process(["sh", "-c", "kill -9 $$"], here)

    def test_a_preload_that_the_loader_refuses_ends_the_run(self):
        with tempfile.NamedTemporaryFile(suffix=".so") as no_library:
            with self.assertRaises(Refused):
                jobs.run_process(["true"], allocators.Allocator("bad", no_library.name))

    def test_allocators_that_cannot_be_preloaded_are_refused(self):
        for words in (["unheard-of"], ["x=/no/such/file.so"], ["loop"]):
            with self.assertRaises(Refused):
                allocators.choose(words, __file__)
        self.assertEqual(list(allocators.choose(["p=" + __file__, "glibc"], __file__)),
                         ["ashlar", "p", "glibc"])


if __name__ == "__main__":
    unittest.main()
