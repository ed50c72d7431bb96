"""Tables: figures in rows and columns, as plain text, as Markdown and as JSON."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from .figures import Figure

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass
class Table:
    """A title, columns, and rows of a name and its cells: figures, or text where there is none."""

    title: str
    columns: Sequence[str]
    rows: list[tuple[str, Sequence[Figure | str]]] = field(default_factory=list)
    notes: Sequence[str] = ()

    def add(self, name: str, *cells: Figure | str) -> None:
        """Add a row."""
        self.rows.append((name, cells))

    def __str__(self) -> str:
        lines = [("", *self.columns), *((name, *map(str, cells)) for name, cells in self.rows)]
        widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
        first, *others = (_line(line, widths) for line in lines)
        rule = "-" * len(first)
        return "\n".join([self.title, rule, first, rule, *others, rule, *self.notes])

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> Table:
        """The table that `as_json` has made this of."""
        table = cls(content["title"], [*next(iter(content["rows"].values()))], notes=content["notes"])
        for name, cells in content["rows"].items():
            table.add(name, *(Figure(**cell) if isinstance(cell, dict) else cell for cell in cells.values()))
        return table

    @property
    def caption(self) -> str:
        """The title without its number."""
        return self.title.partition(" ")[2] if self.title[0].isdigit() else self.title

    def as_markdown(self) -> str:
        """The table as docs/performance.md has it."""
        lines = [("", *self.columns), ("---", *("--:" for _ in self.columns))]
        lines += [(name, *map(str, cells)) for name, cells in self.rows]
        table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
        return "\n\n".join(filter(None, (f"*{self.caption}*", table, " ".join(self.notes))))

    def as_json(self) -> dict[str, Any]:
        """The table as JSON has it."""
        rows = {
            name: {
                column: asdict(cell) if isinstance(cell, Figure) else cell
                for column, cell in zip(self.columns, cells, strict=True)
            }
            for name, cells in self.rows
        }
        return {"title": self.title, "rows": rows, "notes": [*self.notes]}


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    name, *others = (
        cell.rjust(width) if place else cell.ljust(width)
        for place, (cell, width) in enumerate(zip(cells, widths, strict=True))
    )
    return "  ".join([name, *others])
