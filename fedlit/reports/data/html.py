"""What would be read, as one HTML file that needs no network and no script."""

from __future__ import annotations

import colorsys
from collections import defaultdict
from collections.abc import Sequence
from html import escape

from fedlit.data.base.overview import Bars, Curve, Lengths, Overview, Table, Thumbnail
from fedlit.reports.data.cells import headline, left_out_in_all, merged_column, numeric, totals, written
from fedlit.reports.data.svg import MOST_CHANNELS, curve_svg, histogram_svg, image_png

SAMPLED_CLIENTS = 24
"""Samples of so many clients are drawn, so that the file stays small."""
TRACK = 400
"""Pixels of the longest bar."""
COLOURS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#f0e442", "#7f7f7f")
"""Colours of Okabe and Ito (2008), which colour-blind readers tell apart; more classes take turns of hue."""
PRIVATE = (
    "This file holds samples of the data: it is for the site that made it. Do not share it. "
    "fedlit data --samples 0 makes one without."
)
PLAIN = "This file holds counts and names of records, sites and classes, and no sample of the data."
STYLE = """
:root{color-scheme:light}
body{font:14px/1.45 system-ui,sans-serif;color:#1b1f24;background:#fff;margin:0 auto;padding:24px;max-width:1190px}
h1{font-size:22px;margin:0 0 4px}h2{font-size:17px;margin:32px 0 8px;border-bottom:1px solid #d8dee4}
h3{font-size:14px;margin:16px 0 4px}
p{margin:4px 0}.note{color:#57606a;font-size:12.5px}
.private,.plain,.simulated{padding:8px 12px;border-radius:6px;margin:12px 0}
.private{background:#ffebe9;border:1px solid #cf222e;font-weight:600}.plain{background:#f6f8fa;border:1px solid #d8dee4}
.simulated{background:#fff8c5;border:1px solid #bf8700;font-weight:600}
table{border-collapse:collapse;margin:6px 0}td,th{padding:2px 12px 2px 0;text-align:left;vertical-align:top;
overflow-wrap:anywhere}
th{font-weight:600;border-bottom:1px solid #8c959f}td.n,th.n{text-align:right;font-variant-numeric:tabular-nums;
white-space:nowrap}
.sections{display:flex;flex-wrap:wrap;gap:0 56px;align-items:flex-start}.sections>section{max-width:100%}
.sections .note{max-width:520px}
tr.first td{border-top:1px solid #eaeef2}td.c{font-weight:600}
ul{margin:4px 0;padding-left:20px}
.bars td{padding-bottom:1px}
.bars svg{display:block}
.key{display:inline-block;width:11px;height:11px;margin:0 5px 0 0;border-radius:2px}.legend span.name{margin-right:16px}
.row{display:flex;flex-wrap:wrap;gap:8px 18px}figure{margin:0;max-width:280px}figure.image{max-width:96px}
figcaption{font-size:11.5px;color:#57606a;overflow-wrap:anywhere}figure.image img{width:96px;image-rendering:auto}
svg text{font:10.5px system-ui,sans-serif;fill:#57606a}svg text.end{text-anchor:end}
polyline{fill:none;stroke-width:1.1;stroke-linejoin:round}polyline.context{stroke:#0072b2}polyline.target{stroke:#d55e00}
line.cut{stroke:#8c959f;stroke-dasharray:3 3}line.axis{stroke:#8c959f}rect.bar{fill:#0072b2}
"""


def as_html(overview: Overview) -> str:
    """The file; samples are drawn where the overview has some."""
    drawn = overview.shown.samples
    out = ['<!doctype html><html lang="en"><head><meta charset="utf-8">']
    out.append(f"<title>{escape(headline(overview))}</title><style>{STYLE}</style></head><body>")
    out.append(f"<h1>What would be read: {escape(overview.data)}</h1><p>{escape(totals(overview))}</p>")
    out.append(f'<p class="private">{escape(PRIVATE)}</p>' if drawn else f'<p class="plain">{PLAIN}</p>')
    if overview.simulated:
        out.append('<p class="simulated">Simulated data, or a stand-in: nothing here was measured.</p>')
    out.append(_warnings(overview))
    out.append("<h2>Asked for</h2>" + _rows(["what", "value"], [list(pair) for pair in overview.facts.items()]))
    out.append(_left_out(overview))
    if overview.found:
        out.append("<h2>Found</h2>" + _rows(["what", "found"], [list(pair) for pair in overview.found.items()]))
    sections = [_table(table) for table in overview.shown.tables]
    sections += [_bars(chart) for chart in overview.shown.charts if isinstance(chart, Bars)]
    out.append('<div class="sections">' + "".join(f"<section>{own}</section>" for own in sections) + "</div>")
    out += [_lengths(chart) for chart in overview.shown.charts if isinstance(chart, Lengths)]
    out.append(_samples(drawn))
    return "\n".join(part for part in out if part) + "\n</body></html>\n"


def _warnings(overview: Overview) -> str:
    if not overview.warnings:
        return "<h2>No warnings</h2>"
    items = "".join(f"<li>{escape(warning)}</li>" for warning in overview.warnings)
    return f"<h2>{len(overview.warnings)} warning(s)</h2><ul>{items}</ul>"


def _left_out(overview: Overview) -> str:
    if not overview.left_out:
        return "<h2>Left out: nothing</h2>"
    rows = [[str(count), reason, names] for count, reason, names in overview.left_out]
    title = f"<h2>Left out: {left_out_in_all(overview)}</h2>"
    return title + _rows(["records", "why (of the first)", "which"], rows, [True, False, False])


def _table(table: Table) -> str:
    rows = [[written(cell) for cell in row] for row in table.rows]
    note = f'<p class="note">{escape(table.note)}</p>' if table.note else ""
    return f"<h2>{escape(table.title)}</h2>{note}" + _rows(list(table.columns), rows, numeric(table))


def _rows(columns: Sequence[str], rows: Sequence[Sequence[str]], numbers: Sequence[bool] = ()) -> str:
    right = list(numbers) or [False] * len(columns)
    kinds = [' class="n"' if own else "" for own in right]
    head = "".join(f"<th{kind}>{escape(name)}</th>" for name, kind in zip(columns, kinds, strict=True))
    out = [f"<table><tr>{head}</tr>"]
    kinds[0] = kinds[0] or ' class="c"'
    names = [row[0] for row in rows] if right[0] else merged_column([row[0] for row in rows])
    for name, row in zip(names, rows, strict=True):
        cells = "".join(f"<td{kind}>{escape(cell)}</td>" for cell, kind in zip((name, *row[1:]), kinds, strict=True))
        out.append(f"<tr{' class=first' if name else ''}>{cells}</tr>")
    return "".join(out) + "</table>"


def _colours(count: int) -> list[str]:
    if count <= len(COLOURS):
        return list(COLOURS[:count])
    turns = [colorsys.hls_to_rgb(i / count, (0.42, 0.6)[i % 2], 0.6) for i in range(count)]
    return ["#" + "".join(f"{round(255 * part):02x}" for part in turn) for turn in turns]


def _bars(chart: Bars) -> str:
    colours = _colours(len(chart.names))
    keys = "".join(
        f'<span class="name"><span class="key" style="background:{colour}"></span>{escape(name)}</span>'
        for name, colour in zip(chart.names, colours, strict=True)
    )
    most = max((sum(counts) for _, _, counts in chart.rows), default=0) or 1
    names = merged_column([client for client, _, _ in chart.rows])
    out = [f'<h2>{escape(chart.title)}, by client and split</h2><p class="legend">{keys}</p><table class="bars">']
    for name, (_, split, counts) in zip(names, chart.rows, strict=True):
        x, parts = 0.0, []
        for label, count, colour in zip(chart.names, counts, colours, strict=True):
            wide = TRACK * count / most
            if count:
                tip = f"<title>{escape(label)}: {count}</title>"
                parts.append(f'<rect x="{x:.1f}" y="1" width="{wide:.1f}" height="13" fill="{colour}">{tip}</rect>')
            x += wide
        track = f'<svg width="{TRACK}" height="15" role="img">{"".join(parts)}</svg>'
        out.append(
            f'<tr{" class=first" if name else ""}><td class="c">{escape(name)}</td><td>{escape(split)}</td>'
            f'<td>{track}</td><td class="n">{sum(counts)}</td></tr>'
        )
    return "".join(out) + "</table>"


def _lengths(chart: Lengths) -> str:
    every = [value for values in chart.values.values() for value in values]
    if not every:
        return ""
    reach = min(every), max(every)
    figures = [
        f"<figure>{histogram_svg(values, reach, chart.unit)}<figcaption>{escape(client)}</figcaption></figure>"
        for client, values in chart.values.items()
        if values
    ]
    return f'<h2>{escape(chart.title)}</h2><div class="row">{"".join(figures)}</div>'


def _samples(samples: Sequence[Curve | Thumbnail]) -> str:
    by_client: dict[str, list[str]] = defaultdict(list)
    for sample in samples:
        if sample.client in by_client or len(by_client) < SAMPLED_CLIENTS:
            by_client[sample.client].append(_figure(sample))
    if not by_client:
        return ""
    left = len({sample.client for sample in samples}) - len(by_client)
    notes = ["Samples of training data."]
    if any(isinstance(sample, Curve) and sample.target is not None for sample in samples):
        notes.append("Blue: what a forecast sees; red: what it is to forecast.")
    if left:
        notes.append(f"{left} more clients are not drawn.")
    parts = [f'<h3>{escape(client)}</h3><div class="row">{"".join(own)}</div>' for client, own in by_client.items()]
    return f'<h2>Samples</h2><p class="note">{" ".join(notes)}</p>' + "".join(parts)


def _figure(sample: Curve | Thumbnail) -> str:
    if isinstance(sample, Thumbnail):
        picture = f'<img alt="" src="{image_png(sample)}">'
        return f'<figure class="image">{picture}<figcaption>{escape(sample.caption)}</figcaption></figure>'
    more = len(sample.values) - MOST_CHANNELS
    unit = f", {sample.unit}" if sample.unit else ""
    caption = f"{sample.caption}{unit}" + (f"; {more} more channels" if more > 0 else "")
    return f"<figure>{curve_svg(sample)}<figcaption>{escape(caption)}</figcaption></figure>"
