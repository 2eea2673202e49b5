"""Two runs side by side: how ours changed, with the machine's drift taken out.

A machine is not as fast today as it was yesterday. The peers that are the same files in both runs
say by how much, row by row: the change of ours is its ratio new ÷ old, divided by the geometric
mean of theirs.
"""

import figures
import tables
from allocators import OURS
from errors import Refused


def common_peers(old, new):
    """The peers that are the very same build in both runs."""
    def key(identity):
        return identity.get("sha256", identity["version"])

    before, after = old.about["allocators"], new.about["allocators"]
    return [name for name in new.names() if name != OURS and name in before
            and key(before[name]) == key(after[name])]


def change(old_by_name, new_by_name, peers):
    """New ÷ old of ours and of the machine; the first is None where a round failed."""
    old, new = figures.figures_of(old_by_name), figures.figures_of(new_by_name)
    ours = figures.ratio(new.get(OURS), old.get(OURS))
    machine = figures.geometric_mean(
        figures.ratio(new.get(peer), old.get(peer)) for peer in peers) or 1.0
    return (None if ours is None else ours / machine), machine


def lines(old, new):
    peers = common_peers(old, new)
    text = [f"old: {old.about['commit']} {old.about['date']}",
            f"new: {new.about['commit']} {new.about['date']}",
            "change: new ÷ old, below 1 is less; "
            + (f"divided by that of the same {' '.join(peers)} (machine)" if peers else
               "no peer is the same in both, so the machine's own drift is in it")]
    shown = False
    for name, group in tables.GROUPS.items():
        rows = [row for row in new.numbers.get(name, {}) if row in old.numbers.get(name, {})]
        if rows:
            shown = True
            text += ["", *tables.aligned(_table(name, group, rows, old, new, peers))]
    if not shown:
        raise Refused("the two files have no row in common")
    return text


def _table(name, group, rows, old, new, peers):
    table = [[group.title, "old", "new", "change", "machine"]]
    changes = []
    for row in rows:
        before, after = old.numbers[name][row], new.numbers[name][row]
        ours, machine = change(before, after, peers)
        changes.append(ours)
        medians = [figures.figures_of(one).get(OURS) for one in (before, after)]
        table.append([row, *("failed" if f is None else tables.show(f.median, group.units)
                             for f in medians),
                      tables.show_ratio(ours), tables.show_ratio(machine)])
    if group.averaged and len(rows) > 1:
        mean = tables.show_ratio(figures.geometric_mean(changes))
        table.append([tables.MEAN, "", "", mean, ""])
    return table
