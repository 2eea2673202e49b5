"""One picture a workload: what is live, and what each allocator holds for it."""

import matplotlib

matplotlib.use("svg")
from matplotlib import pyplot  # noqa: E402
from matplotlib.lines import Line2D  # noqa: E402

from measures import MIB  # noqa: E402

OURS_COLOUR = "#c0392b"
# Most colour-blind readers tell these apart too: Okabe and Ito's, without the reds, and some more.
PEER_COLOURS = ["#0072b2", "#009e73", "#e69f00", "#56b4e9", "#cc79a7", "#8c6d31", "#6a51a3",
                "#555555", "#17a2a2", "#a0a820"]
PEER_STYLES = ["-", "--", "-."]

matplotlib.rcParams.update({
    "svg.fonttype": "none",
    "svg.hashsalt": "frag",  # the same run, the same file
    "font.family": ["DejaVu Sans", "sans-serif"],
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e8e8e8",
    "grid.linewidth": 0.6,
})


def draw(path, title, runs, ours):
    """runs: allocator → Run. On the left the load, on the right the silence after it."""
    figure, panels = pyplot.subplots(1, 2, sharey=True, figsize=(10, 4.2),
                                     width_ratios=(3, 1), layout="constrained")
    figure.get_layout_engine().set(wspace=0.01)
    load, idle = panels
    load.set_title(title, loc="left", fontweight="bold")
    load.set_xlabel("MiB moved since the start")
    load.set_ylabel("MiB")
    idle.set_xlabel("seconds after the load, idle")
    load.margins(x=0)
    idle.margins(x=0)

    lines = []
    styles = peer_styles([name for name in runs if name != ours])
    for name, run in runs.items():
        style = styles.get(name, {"color": OURS_COLOUR, "lw": 2.2, "zorder": 5})
        held = [run.memory(index) / MIB for index in range(run.end + 1)]
        (line,) = plot(panels, run, held, **style)
        line.set_label(f"{name}  {held[-1]:.0f}")
        lines.append((held[-1], line))
        if any(run["active"]):
            active = [value / MIB or float("nan") for value in run["active"]]
            plot(panels, run, active, color=style["color"], lw=0.9, ls=":")
    lines.sort(key=lambda pair: -pair[0])

    first = runs[ours] if ours in runs else next(iter(runs.values()))
    live = [value / MIB for value in first["live"]]
    for panel, x, part in sides(panels, first):
        area = panel.fill_between(x, live[part], color="#d4d4d4", lw=0, label=f"live  {live[-1]:.0f}")
    load.set_ylim(bottom=0)
    dots = Line2D([], [], color="#555555", lw=0.9, ls=":", label="active, if told")
    idle.legend(handles=[line for _, line in lines] + [area, dots], loc="center left",
                bbox_to_anchor=(1.02, 0.5), title="MiB at the end", frameon=False,
                alignment="left")
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)


def peer_styles(names):
    colours, kinds = len(PEER_COLOURS), len(PEER_STYLES)
    return {name: {"color": PEER_COLOURS[number % colours], "ls": PEER_STYLES[number % kinds],
                   "lw": 1.2} for number, name in enumerate(names)}


def plot(panels, run, values, **style):
    for panel, x, part in sides(panels, run):
        drawn = panel.plot(x, values[part], **style)
    return drawn


def sides(panels, run):
    """Each panel, its x, and the samples that it shows."""
    load, idle = slice(run.start, run.load_end + 1), slice(run.load_end, None)
    moved, times = run["moved"], run["time_s"]
    yield panels[0], [value / MIB for value in moved[load]], load
    yield panels[1], [time - times[run.load_end] for time in times[idle]], idle
