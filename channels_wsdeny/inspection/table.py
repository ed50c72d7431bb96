"""The table: rows of text in aligned columns, by `rich` where that is installed and a terminal shows it."""

from __future__ import annotations

from importlib import import_module
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from ..log import escape

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import TextIO

    from django.core.management.base import OutputWrapper

    Rows = Sequence[Sequence[str]]

_GAP = "  "


def write(headings: Sequence[str], rows: Rows, out: TextIO | OutputWrapper) -> None:
    """Write `rows` under `headings` to `out`, without the columns that are empty."""
    filled = [number for number in range(len(headings)) if any(row[number] for row in rows)]
    headings, *rows = [[row[number] for number in filled] for row in (headings, *rows)]
    rich = _rich() if out.isatty() else None
    if rich is None:
        out.write("\n".join(plain([headings, *rows])) + "\n")
        return
    table = rich.Table(*headings, box=None, pad_edge=False, header_style="bold")
    for column in table.columns:
        column.overflow = "fold"  # rather than an ellipsis: what is cut off could be what matters
    for row in rows:
        table.add_row(*(rich.Text(escape(cell)) for cell in row))
    console = rich.Console(file=out)
    with console.capture() as captured:
        console.print(table)
    out.write(captured.get())


def plain(rows: Rows) -> list[str]:
    """The lines of the table as plain text, control characters escaped."""
    columns = [[escape(cell) for cell in column] for column in zip(*rows, strict=True)]
    widths = [max(map(len, column)) for column in columns]
    return [
        _GAP.join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in zip(*columns, strict=True)
    ]


def _rich() -> Any:
    """What is used of `rich`; None where it is not installed."""
    try:
        console, table, text = (import_module(f"rich.{name}") for name in ("console", "table", "text"))
    except ImportError:
        return None
    return SimpleNamespace(Console=console.Console, Table=table.Table, Text=text.Text)
