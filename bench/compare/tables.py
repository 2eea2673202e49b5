"""The tables of a run, as text: one for each group of rows, and where ours is behind."""

import dataclasses

import figures
from allocators import LOOP, OURS


@dataclasses.dataclass(frozen=True)
class Group:
    title: str
    units: tuple  # (suffix, size) from small to large
    averaged: bool = True  # whether a mean over the rows says anything


MEAN = "geometric mean"
TIME = (("ns", 1e-9), ("µs", 1e-6), ("ms", 1e-3), ("s", 1.0))
GROUPS = {
    "micro": Group("micro rows: time per operation", TIME),
    "cpu": Group("programs: CPU time, user and system", (("s", 1.0),)),
    "peak": Group("programs: peak RSS", (("KiB", 1 << 10), ("MiB", 1 << 20))),
    "latency": Group("single calls under a mixed load", TIME, averaged=False),
    "instructions": Group("instructions of a call when all is at hand", (("", 1.0),),
                          averaged=False),
}


def show(number, units):
    """Three digits and the unit that suits."""
    suffix, size = units[0]
    for suffix, size in units:
        if number < 999.5 * size:
            break
    if not suffix:
        return f"{number:.0f}"
    digits = f"{number / size:#.3g}".rstrip(".") if number else "0"
    return f"{digits} {suffix}"


def show_ratio(ratio):
    return "–" if ratio is None else f"{ratio:.2f}"


def lines(results):
    about = results.about
    conf = f"; ASHLAR_CONF={about['conf']}" if about["conf"] else ""
    text = [f"{about['cpu']}, {about['cores']} cores, Linux {about['kernel']}; medians of "
            f"{about['rounds']} round(s), (least–most){conf}",
            f"under each peer: {OURS} ÷ peer, below 1 {OURS} takes less; ~: the rounds of one of the "
            f"two differ by more than {figures.NOISY:.0%}"]
    for name, group in GROUPS.items():
        if name in results.numbers:
            text += ["", *aligned(_table(results, group, results.numbers[name]))]
    return text + ["", *_behind(results)]


def _table(results, group, rows):
    """A list of lines of cells: a head, a line for each row, one for the means."""
    peers = results.names()[1:]
    loop = any(LOOP in by_name for by_name in rows.values())
    table = [[group.title, OURS, "", *peers, "best", "peer", *([LOOP] if loop else [])]]
    ratios = []
    for row, by_name in rows.items():
        known = figures.figures_of(by_name)
        loop_figure, ours = known.pop(LOOP, None), known.pop(OURS, None)
        best = figures.best_of(known)
        to_peers = [figures.ratio(ours, known.get(peer)) for peer in peers]
        to_best = figures.ratio(ours, known.get(best))
        ratios.append([*to_peers, to_best])
        cells = [row, *_own_cells(ours, group)]
        cells += [_ratio_cell(one, ours, known.get(peer)) for peer, one in zip(peers, to_peers)]
        cells += [show_ratio(to_best), f"{show(known[best].median, group.units)} {best}"
                  if best else "failed"]
        if loop:
            cells.append(show(loop_figure.median, group.units) if loop_figure else "")
        table.append(cells)
    if group.averaged and len(rows) > 1:
        means = [show_ratio(figures.geometric_mean(column)) for column in zip(*ratios)]
        table.append([MEAN, "", "", *means, "", *([""] if loop else [])])
    return table


def _own_cells(ours, group):
    if ours is None:
        return ["failed", ""]
    least, most = show(ours.least, group.units), show(ours.most, group.units)
    mark = "~" if ours.noisy else ""
    return [show(ours.median, group.units) + mark, f"({least}–{most})" if least != most else ""]


def _ratio_cell(ratio, ours, theirs):
    if ratio is None:
        return "–"
    return show_ratio(ratio) + ("~" if ours.noisy or theirs.noisy else " ")


def aligned(table):
    """The lines of a table whose first line is its head and whose last may be the means."""
    widths = [max(map(len, column)) for column in zip(*table)]
    text = []
    for row, *cells in table:
        padded = [cell.rjust(width) for cell, width in zip(cells, widths[1:])]
        text.append("  ".join([row.ljust(widths[0]), *padded]).rstrip())
    rule = "-" * max(map(len, text))
    text.insert(1, rule)
    if table[-1][0] == MEAN:
        text.insert(len(text) - 1, rule)
    return text


def behind(results):
    """(ratio, group, row, best peer) where ours takes more than the best peer, worst first."""
    found = []
    for group, rows in results.numbers.items():
        for row, by_name in rows.items():
            known = figures.figures_of({n: v for n, v in by_name.items() if n != LOOP})
            ours = known.pop(OURS, None)
            best = figures.best_of(known)
            ratio = figures.ratio(ours, known.get(best))
            if ratio is not None and ratio > figures.BEHIND:
                found.append((ratio, group, row, best))
    return sorted(found, reverse=True)


def _behind(results):
    found = behind(results)
    if not found:
        return [f"no row is more than {figures.BEHIND - 1:.0%} behind its best peer"]
    return [f"more than {figures.BEHIND - 1:.0%} behind the best peer of the row:",
            *(f"  {ratio:5.2f}  {group}: {row} ({best})" for ratio, group, row, best in found)]
