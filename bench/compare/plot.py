"""The ratios of a run as an SVG picture: a line for each row, a dot for each peer.

A dot to the right of the middle line is a peer that takes more than ours; one on its left, less.
"""

import math
from xml.sax.saxutils import escape

import figures
import tables
from allocators import LOOP, OURS

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000", "#999999")
LABELS_PX, SCALE_PX, ROW_PX, HEAD_PX = 200, 640, 17, 64
LEAST, MOST = 1 / 4, 8  # ratios beyond are drawn at the edge, as triangles
MARKS = (0.25, 0.5, 0.8, 1, 1.25, 2, 4, 8)


def write(results, path):
    with open(path, "w", encoding="utf-8") as file:
        file.write(svg(results))


def svg(results):
    peers = results.names()[1:]
    colours = {peer: COLOURS[i % len(COLOURS)] for i, peer in enumerate(peers)}
    shapes, y = [], HEAD_PX
    for name, group in tables.GROUPS.items():
        rows = results.numbers.get(name)
        if not rows:
            continue
        y += 2 * ROW_PX
        shapes.append(_text(LABELS_PX, y, group.title, weight="bold", anchor="start"))
        for row, by_name in rows.items():
            y += ROW_PX
            shapes += _row(row, y, _ratios(by_name, peers), colours)
    bottom = y + ROW_PX
    width, height = LABELS_PX + SCALE_PX + 40, bottom + 2 * ROW_PX
    return "\n".join([
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
        f'viewBox="0 0 {width} {height}" font-family="sans-serif" font-size="12">',
        f'<rect width="{width}" height="{height}" fill="white"/>',
        _text(LABELS_PX, 18, f"Each peer ÷ {OURS}, medians: to the right of 1 the peer takes more",
              anchor="start"),
        *_legend(colours), *_grid(bottom), *shapes, "</svg>", ""])


def _ratios(by_name, peers):
    known = figures.figures_of({name: one for name, one in by_name.items() if name != LOOP})
    ours = known.get(OURS)
    found = {peer: figures.ratio(known.get(peer), ours) for peer in peers}
    return {peer: ratio for peer, ratio in found.items() if ratio is not None}


def _x(ratio):
    inside = min(max(ratio, LEAST), MOST)
    return LABELS_PX + SCALE_PX * math.log(inside / LEAST) / math.log(MOST / LEAST)


def _row(row, y, ratios, colours):
    shapes = [_text(LABELS_PX - 10, y, row, anchor="end"),
              f'<line x1="{LABELS_PX}" x2="{LABELS_PX + SCALE_PX}" y1="{y - 4}" y2="{y - 4}" '
              'stroke="#eee"/>']
    for peer, ratio in ratios.items():
        shapes.append(_dot(_x(ratio), y - 4, ratio, colours[peer],
                           f"{row}: {peer} {ratio:.2f}"))
    return shapes


def _dot(x, y, ratio, colour, title):
    title = f"<title>{escape(title)}</title>"
    if LEAST <= ratio <= MOST:
        return f'<circle cx="{x:.1f}" cy="{y}" r="4" fill="{colour}" fill-opacity="0.8">{title}</circle>'
    tip = 6 if ratio > MOST else -6
    return (f'<path d="M {x:.1f} {y - 4} l {tip} 4 l {-tip} 4 z" fill="{colour}" '
            f'fill-opacity="0.8">{title}</path>')


def _legend(colours):
    x, shapes = LABELS_PX, []
    for peer, colour in colours.items():
        shapes.append(f'<circle cx="{x + 4}" cy="34" r="4" fill="{colour}"/>')
        shapes.append(_text(x + 13, 38, peer, anchor="start"))
        x += 30 + 7 * len(peer)
    return shapes


def _grid(bottom):
    shapes = []
    for mark in MARKS:
        x, colour = _x(mark), "#444" if mark == 1 else "#ccc"
        shapes.append(f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{HEAD_PX}" y2="{bottom}" '
                      f'stroke="{colour}"/>')
        for y in (HEAD_PX - 6, bottom + 14):
            shapes.append(_text(x, y, f"{mark:g}", anchor="middle"))
    return shapes


def _text(x, y, text, anchor, weight="normal"):
    return (f'<text x="{x:.1f}" y="{y}" text-anchor="{anchor}" font-weight="{weight}">'
            f'{escape(text)}</text>')
