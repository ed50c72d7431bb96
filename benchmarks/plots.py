"""Plots of figures as SVG: ``python -m benchmarks.plots FIGURES.json DIRECTORY``."""

from __future__ import annotations

import json
import sys
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

from .figures import Figure, number
from .tables import Table

if TYPE_CHECKING:
    from collections.abc import Sequence

#: The plots, by the names of their files: the number of a table, and the columns that are shown.
PLOTS = {
    "denial": ("1a.", ["anonymous"]),
    "session": ("1b.", ["persistent"]),
    "wire": ("3.", ["denials/s"]),
    "crowd": ("4a.", ["50 at once", "500 at once"]),
    "pool": ("4c.", ["handshakes/s", "echoes meanwhile / alone"]),
}
_WIDTH, _NAMES, _VALUES, _ROW = 700, 210, 150, 22
_STYLE = """
text { fill: #1f2328 }
.head { font-weight: 600 }
.other { fill: #b6c2cf }
.ours { fill: #4051b5 }
.spread { stroke: #57606a; stroke-width: 1.5 }
@media (prefers-color-scheme: dark) {
  text { fill: #e6edf3 }
  .other { fill: #57606a }
  .ours { fill: #8c9eff }
  .spread { stroke: #b6c2cf }
}
"""


def plot(table: Table, columns: Sequence[str]) -> str:
    """Horizontal bars, a group for each of `columns`: as long as the median, with a line from the least to the most.

    Bare ASGI applications are left out, beside which all others look alike.
    """
    parts, y = [], 0
    for column in columns:
        place = table.columns.index(column)
        cells = [(name, cells[place]) for name, cells in table.rows]
        figures = [(name, cell) for name, cell in cells if isinstance(cell, Figure) and not name.startswith("bare")]
        scale = (_WIDTH - _NAMES - _VALUES) / max(figure.high for _, figure in figures)
        y += _ROW
        parts.append(f'<text class="head" x="0" y="{y - 6}">{escape(column)}</text>')
        for name, figure in figures:
            parts += _bar(name, figure, y, scale)
            y += _ROW
        y += _ROW // 2
    opening = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {y}" width="{_WIDTH}" height="{y}" role="img"'
    )
    font = 'font-family="system-ui, \'Segoe UI\', Roboto, Arial, sans-serif" font-size="13"'
    title = f"<title>{escape(table.caption)}</title>"
    return "\n".join([f"{opening} {font}>", title, f"<style>{_STYLE}</style>", *parts, "</svg>", ""])


def _bar(name: str, figure: Figure, y: int, scale: float) -> list[str]:
    low, middle, high = (_NAMES + value * scale for value in (figure.low, figure.median, figure.high))
    kind = "ours" if name.startswith(("channels_wsdeny", "POOL_SIZE")) else "other"
    center = y + 9
    return [
        f'<text x="0" y="{y + 13}">{escape(name)}</text>',
        f'<rect class="{kind}" x="{_NAMES}" y="{y + 2}" width="{max(middle - _NAMES, 1):.1f}" height="14"/>',
        f'<line class="spread" x1="{low:.1f}" y1="{center}" x2="{high:.1f}" y2="{center}"/>',
        f'<text x="{high + 8:.1f}" y="{y + 13}">{escape(number(figure.median))}</text>',
    ]


def main(source: str, directory: str) -> None:
    """Write all plots of the tables that are there."""
    tables = [Table.from_json(each) for each in json.loads(Path(source).read_text())["tables"]]
    for name, (title, columns) in PLOTS.items():
        for table in tables:
            if table.title.startswith(title):
                (Path(directory) / f"{name}.svg").write_text(plot(table, columns))


if __name__ == "__main__":
    main(*sys.argv[1:])
