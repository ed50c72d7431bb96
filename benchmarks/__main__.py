"""The command: ``python -m benchmarks`` from the root of the checkout."""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from . import machine
from .items import ITEMS
from .plan import Plan
from .processes import ROOT, environment
from .targets import table_of


def main() -> int:
    """Run the items; returns 1 if a contender crashed or answered wrongly, whatever the figures are."""
    options = _options()
    about = machine.description()
    print("\n".join(f"{name}: {value}" for name, value in about.items()))
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="benchmarks-") as directory:
        plan = _plan(options, Path(directory) / "db.sqlite3")
        reports = []
        for number in options.only:
            reports.append(ITEMS[number](plan))
            for table in reports[-1].tables:
                print(f"\n{table}", flush=True)
    tables = [table for report in reports for table in report.tables]
    tables.append(table_of([target for report in reports for target in report.targets]))
    print(f"\n{tables[-1]}")
    about["duration"] = f"{time.monotonic() - began:.0f} s{', quick' if options.quick else ''}"
    print(f"\nIt took {about['duration']}.")
    if options.json:
        content = {
            **about,
            "failures": plan.failures,
            "not available": plan.absences,
            "tables": [table.as_json() for table in tables],
        }
        options.json.write_text(json.dumps(content, indent=2) + "\n")
    if options.markdown:
        options.markdown.write_text("\n\n".join(table.as_markdown() for table in tables) + "\n")
    for absence in plan.absences:
        print(f"Not available: {absence}")
    for failure in plan.failures:
        print(f"FAILED {failure}", file=sys.stderr)
    return 1 if plan.failures else 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="less of everything, in less than a minute")
    parser.add_argument("--only", metavar="1,3,...", type=_numbers, default=[*ITEMS], help="these items only")
    parser.add_argument("--json", metavar="FILE", type=Path, help="write all figures here, too")
    parser.add_argument("--markdown", metavar="FILE", type=Path, help="write the tables of docs/performance.md here")
    parser.add_argument("--seed", type=int, default=None, help="of the order in which contenders take turns")
    return parser.parse_args()


def _numbers(text: str) -> list[int]:
    numbers = [int(number) for number in text.split(",")]
    if not set(numbers) <= set(ITEMS):
        raise argparse.ArgumentTypeError(f"items are numbered {min(ITEMS)} to {max(ITEMS)}, found {text!r}")
    return numbers


def _plan(options: argparse.Namespace, database: Path) -> Plan:
    prepare = [sys.executable, "-m", "benchmarks.database"]
    subprocess.run(prepare, cwd=ROOT, env=environment(database), check=True)
    rounds, seconds = (3, 0.03) if options.quick else (15, 0.25)
    order = random.Random(options.seed)
    return Plan(database=database, random=order, quick=options.quick, rounds=rounds, seconds=seconds)


if __name__ == "__main__":
    sys.exit(main())
