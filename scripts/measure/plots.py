"""Plots of a record, as SVG: a line for each server, or a bar.

Knows: matplotlib. Must not know: where numbers come from. Without matplotlib there is no plot, which is
said once; the numbers are in the record all the same.
"""

import sys

# Ours stands out; everybody else has a colour of their own, the same in every plot of a run.
OURS = "#c2410c"
OTHERS = [
    "#1d4ed8",
    "#15803d",
    "#7e22ce",
    "#0e7490",
    "#a16207",
    "#be185d",
    "#4d7c0f",
    "#475569",
    "#57534e",
]


def colours(names):
    """{name: colour}; ours is the first one."""
    return {name: OURS if index == 0 else OTHERS[(index - 1) % len(OTHERS)] for index, name in enumerate(names)}


def figure():
    """(matplotlib's pyplot) without a screen, or None."""
    try:
        import matplotlib
    except ImportError:
        print("no plot: matplotlib is missing (scripts/measure/setup has it)", file=sys.stderr)
        return None
    matplotlib.use("svg")
    # The same numbers give the same file.
    matplotlib.rcParams.update({"svg.hashsalt": "uringcast", "axes.grid": True, "grid.alpha": 0.25, "font.size": 9})
    import matplotlib.pyplot as pyplot

    return pyplot


def lines(path, series, *, x, y, title, log_x=False, log_y=False, bound=None):
    """`series`: {name: [(x, y), …]}; `bound` is drawn as a dashed line at that y."""
    if path is None or (pyplot := figure()) is None:
        return
    canvas, axes = pyplot.subplots(figsize=(8, 4.5))
    for name, colour in colours(series).items():
        points = [point for point in series[name] if None not in point]
        if points:
            axes.plot(
                *zip(*points, strict=True),
                marker="o",
                markersize=3.5,
                color=colour,
                label=name,
                linewidth=2 if colour == OURS else 1.2,
            )
    if bound is not None:
        axes.axhline(bound, color="#555555", linestyle="--", linewidth=1)
    if log_x:
        axes.set_xscale("log")
    if log_y:
        axes.set_yscale("log")
    axes.set(xlabel=x, ylabel=y, title=title)
    axes.legend(fontsize=8)
    save(pyplot, canvas, path)


# Of more, names stand upright, or they would cover each other.
BARS_FLAT_MAX = 10


def bars(path, values, *, y, title, log_y=False):
    """`values`: {name: number}, each with its number above it."""
    if path is None or (pyplot := figure()) is None:
        return
    values = {name: value for name, value in values.items() if value is not None}
    canvas, axes = pyplot.subplots(figsize=(8, 4))
    drawn = axes.bar(list(values), list(values.values()), color=list(colours(values).values()))
    axes.bar_label(drawn, fmt=lambda value: f"{value:,.0f}" if value >= 100 else f"{value:.3g}", fontsize=8)
    if log_y:
        axes.set_yscale("log")
    axes.set(ylabel=y, title=title)
    axes.tick_params(axis="x", labelrotation=20 if len(values) <= BARS_FLAT_MAX else 90)
    save(pyplot, canvas, path)


def save(pyplot, canvas, path):
    canvas.tight_layout()
    canvas.savefig(path, metadata={"Date": None})
    pyplot.close(canvas)
