"""How the fine-tuning report looks: its CSS, and label colours that can be told from the paper and from each other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

Color = tuple[int, int, int]

LIGHT_CARD: Color = (255, 255, 255)
DARK_CARD: Color = (24, 28, 34)
UNKNOWN: Color = (128, 128, 128)
LEAST_CONTRAST = 3.0  # of graphics against what is behind them, WCAG 2.1, success criterion 1.4.11
ALIKE = 60  # sum of differences in red, green and blue below which two lines need different dashes
DASHES = ("solid", "dashed", "dotted")  # what CSS can draw


def label_colors(report: Mapping[str, Any]) -> dict[str, Color]:
    """Label name -> RGB, 0 to 255; gray for a label that occurs in the figures but not in the table of labels."""
    colors = {str(entry["name"]): _color(entry.get("color")) for entry in report["labels"]}
    models = [model for model in (report["before"], report["after"]) if model is not None]
    tables = [table for model in models for table in (model["labels"], *model["cases"].values())]
    measured = [name for table in tables for name in table]
    followed = [name for row in report["curves"] for name in row.get("dice") or {}]
    return {**colors, **{str(name): UNKNOWN for name in (*measured, *followed) if name not in colors}}


def _color(value: Any) -> Color:
    if not isinstance(value, Sequence) or len(value) != 3 or not all(isinstance(part, int) for part in value):
        return UNKNOWN
    red, green, blue = (min(255, max(0, part)) for part in value)
    return red, green, blue


def dashes(colors: Mapping[str, Color]) -> dict[str, str]:
    """Label name -> line style; labels of about the same colour (left and right of an organ) get different ones."""
    chosen: dict[str, str] = {}
    for name, color in colors.items():
        alike = sum(sum(abs(a - b) for a, b in zip(color, colors[other], strict=True)) < ALIKE for other in chosen)
        chosen[name] = DASHES[alike % len(DASHES)]
    return chosen


def label_variables(colors: Sequence[Color]) -> str:
    """CSS that defines --label-0, --label-1, ... for light and for dark."""

    def block(card: Color) -> str:
        return "".join(f"--label-{i}:{_hex(readable(color, card))};" for i, color in enumerate(colors))

    return (
        f":root{{{block(LIGHT_CARD)}}}\n@media screen and (prefers-color-scheme:dark){{:root{{{block(DARK_CARD)}}}}}\n"
    )


def readable(color: Color, card: Color) -> Color:
    """`color`, brought towards black or white just as far as it needs to stand out from `card`."""
    end = 0 if _luminance(card) > 0.5 else 255
    for step in range(21):
        red, green, blue = (round(part + (end - part) * step / 20) for part in color)
        if contrast((red, green, blue), card) >= LEAST_CONTRAST:
            break
    return red, green, blue


def contrast(a: Color, b: Color) -> float:
    """The contrast ratio of WCAG 2.1, 1 to 21."""
    low, high = sorted((_luminance(a), _luminance(b)))
    return (high + 0.05) / (low + 0.05)


def _luminance(color: Color) -> float:
    linear = [part / 255 / 12.92 if part / 255 <= 0.04045 else ((part / 255 + 0.055) / 1.055) ** 2.4 for part in color]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def _hex(color: Color) -> str:
    return "#{:02x}{:02x}{:02x}".format(*color)


# Printing always uses the light colours: the dark ones are for screens only.
STYLE = """
:root { color-scheme: light dark;
  --page: #f5f6f8; --card: #ffffff; --ink: #1b2027; --soft: #5a6470; --line: #e0e4e9; --tint: #f3f5f7;
  --accent: #1f5fa8; --better: #19714a; --worse: #a84a12; --good-card: #eef7f1; --warn-card: #fdf5ea;
  --series-0: #1b2027; --series-1: #2f6fb5; --series-2: #c2671b; --series-3: #2c8a5b; --series-4: #9a4fa3;
  --series-5: #937015; --series-6: #b03a48; --series-7: #4f7d8c;
  --phase-0: #5b8fd0; --phase-1: #d9a441; --phase-2: #58ab7d; --phase-3: #a77fc4; --phase-4: #8a8f96; }
@media screen and (prefers-color-scheme: dark) { :root {
  --page: #101318; --card: #181c22; --ink: #e6e9ed; --soft: #9ca6b2; --line: #2d343d; --tint: #1f242b;
  --accent: #7db3f0; --better: #6cc796; --worse: #eba36f; --good-card: #15271e; --warn-card: #2b2215;
  --series-0: #e6e9ed; --series-1: #7db3f0; --series-2: #eba05c; --series-3: #6cc796; --series-4: #cf93d8;
  --series-5: #d6b552; --series-6: #ea8490; --series-7: #8fbccb; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--ink);
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", "Noto Sans", sans-serif; }
main { max-width: 1120px; margin: 0 auto; padding: 32px 24px 24px; }
h1 { font-size: 26px; line-height: 1.25; margin: 0; overflow-wrap: anywhere; }
h1 .version { color: var(--soft); font-weight: 400; }
h2 { font-size: 18px; margin: 0 0 12px; }
h3 { font-size: 15px; margin: 24px 0 8px; }
p { margin: 0 0 8px; max-width: 80ch; overflow-wrap: anywhere; }
a { color: var(--accent); }
.kicker { color: var(--soft); margin: 0 0 2px; font-size: 13px; letter-spacing: .04em; text-transform: uppercase; }
.facts { color: var(--soft); margin: 6px 0 0; }
section { background: var(--card); border: 1px solid var(--line); border-radius: 10px; padding: 20px 24px;
  margin-top: 18px; }
.verdict { border-left: 5px solid var(--soft); }
.verdict.adopted { border-left-color: var(--better); background: var(--good-card); }
.verdict h2 { font-size: 20px; margin-bottom: 6px; }
.verdict p:last-child { margin-bottom: 0; }
.warnings { background: var(--warn-card); }
.soft, .notes, figcaption, .unit { color: var(--soft); }
.unit { font-weight: 400; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { padding: 5px 8px; text-align: right; white-space: nowrap; border-bottom: 1px solid var(--line); }
th { font-weight: 600; }
thead th { color: var(--soft); font-size: 13px; vertical-align: bottom; }
thead tr:first-child th[colspan] { text-align: center; border-bottom: 0; padding-bottom: 0; color: var(--ink); }
tbody th { font-weight: 500; }
th.name, td.name { text-align: left; white-space: normal; overflow-wrap: anywhere; min-width: 9em; }
.first { border-left: 1px solid var(--line); padding-left: 12px; }
td.before { color: var(--soft); }
td.after { font-weight: 600; }
tbody.group th[rowspan], tbody.group tr:last-child > * { border-bottom-color: var(--soft); }
tbody.group th[rowspan] { vertical-align: top; }
.plain { width: auto; min-width: 60%; }
.plain th, .plain td { padding-right: 28px; }
.better { color: var(--better); } .worse { color: var(--worse); }
.missing { color: var(--soft); font-weight: 400; }
sup { font-size: 10px; line-height: 0; margin-left: 1px; color: var(--soft); }
.how { display: block; font-size: 12px; font-weight: 400; color: var(--soft); }
.chip { display: inline-block; width: 11px; height: 11px; border-radius: 3px; margin-right: 7px; }
.notes { font-size: 13px; margin: 8px 0 0; padding: 0; list-style: none; }
.keys { display: flex; flex-wrap: wrap; gap: 4px 18px; margin: 6px 0; font-size: 13px; }
.keys b { font-weight: 600; color: var(--soft); min-width: 4.5em; }
.dash { display: inline-block; width: 22px; height: 0; border-top: 3px solid; vertical-align: middle;
  margin-right: 7px; }
.shade { display: inline-block; width: 16px; height: 12px; opacity: .28; vertical-align: -1px; margin-right: 7px; }
.curves { width: 100%; height: auto; display: block; margin-top: 8px; }
.curves * { stroke-linejoin: round; stroke-linecap: butt; }
.curves text { font-family: inherit !important; }
figure { margin: 16px 0 0; break-inside: avoid; }
figure img { display: block; max-width: 100%; height: auto; border-radius: 6px; }
figcaption { margin-top: 6px; font-size: 14px; overflow-wrap: anywhere; }
figcaption b { color: var(--ink); }
.strip { display: flex; flex-wrap: wrap; gap: 12px; }
.strip figure { margin: 0; }
details { margin-top: 4px; }
summary { cursor: pointer; color: var(--accent); padding: 4px 0; }
pre { background: var(--tint); border-radius: 6px; padding: 12px 14px; margin: 8px 0 0; font-size: 12.5px;
  line-height: 1.45; white-space: pre-wrap; overflow-wrap: anywhere; }
code { background: var(--tint); border-radius: 4px; padding: 2px 6px; font-size: 13.5px; overflow-wrap: anywhere; }
section ul:not(.notes) { margin: 0; padding-left: 20px; }
li { margin: 3px 0; overflow-wrap: anywhere; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: 4px 20px; margin: 0; }
dd details { margin: 0; } dd summary { padding: 0; }
dt { color: var(--soft); } dd { margin: 0; overflow-wrap: anywhere; }
footer { color: var(--soft); text-align: center; padding: 24px 0 8px; font-size: 14px; }
@media (max-width: 640px) { main { padding: 16px 10px; } section { padding: 14px; }
  dl { grid-template-columns: 1fr; gap: 0; } dd { margin-bottom: 8px; } }
@media print {
  @page { margin: 14mm 12mm; }
  body { background: none; font-size: 10.5pt; print-color-adjust: exact; -webkit-print-color-adjust: exact; }
  main { max-width: none; padding: 0; }
  section { border-radius: 0; padding: 10px 14px; margin-top: 10px; }
  table { font-size: 8.5pt; } th, td { padding: 2px 4px; } thead th { font-size: 8pt; } .how { font-size: 7.5pt; }
  tr, .verdict, .curves { break-inside: avoid; }
  h2, h3 { break-after: avoid; }
  .scroll { overflow: visible; } .strip figure { width: 31%; }
  summary { color: var(--soft); }
}
@media print { details::details-content { content-visibility: visible !important; display: block !important; } }
"""
