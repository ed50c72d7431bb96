"""``manage.py wsdeny``: who guards the doors of the site, and what a request for one would get."""

from __future__ import annotations

import json
from argparse import SUPPRESS
from io import TextIOWrapper
from typing import TYPE_CHECKING, Any

from django.core.management.base import BaseCommand, CommandError

from ...inspection import table
from ...inspection.explain import explain
from ...inspection.question import NoQuestion, Question
from ...inspection.report import HEADINGS, Door, doors

if TYPE_CHECKING:
    from argparse import ArgumentParser

    from ...types import Protocol


class Command(BaseCommand):
    """Each subcommand is a method."""

    help = "Shows who guards the sockets and views of the site, and what a request for one would get."
    # What they complain about may be why this command is asked.
    requires_system_checks = ()

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Called by Django."""
        subcommands = parser.add_subparsers(dest="subcommand", required=True, metavar="subcommand")
        self._add_routes(subcommands)
        self._add_explain(subcommands)

    def _add_routes(self, subcommands: Any) -> None:
        add = subcommands.add_parser(
            "routes", help="List every socket and view, and who guards it.", parents=[_everybodys_options()]
        ).add_argument
        add("--json", action="store_true", dest="as_json", help="Print JSON, for programs.")
        add("--only-open", action="store_true", help="List only the doors that nobody guards.")
        add("--fail-on-open", action="store_true", help="Exit with 1 if there is a door that nobody guards.")
        add(
            "--fail-on-default",
            action="store_true",
            help="Exit with 1 if there is a door that nobody guards, or nothing but a default policy.",
        )
        add(
            "--ignore",
            action="append",
            default=[],
            metavar="PREFIX",
            help="Leave out the paths that begin like this, as /metrics/; may be given several times.",
        )

    def _add_explain(self, subcommands: Any) -> None:
        add = subcommands.add_parser(
            "explain",
            parents=[_everybodys_options()],
            help="Tell what a request would get, and why, without running the consumer or view.",
            description=(
                "Hooks, middleware and policies run as for a real request, from 127.0.0.1; consumers and "
                "views do not. No session is saved, nothing is logged, no signal is sent."
            ),
        ).add_argument
        add("path", help="Such as /ws/rooms/lobby/, perhaps with a query string.")
        add("--user", metavar="NAME", help="Who is logged in; by default it is nobody.")
        add("--session", metavar="KEY", help="The key of a session, instead of a user.")
        add(
            "--header",
            action="append",
            default=[],
            metavar="NAME:VALUE",
            help="A header of the request; without a value it is left out. May be given several times.",
        )
        add("--protocol", choices=["websocket", "http"], default="websocket", help="By default, websocket.")

    def handle(self, *args: Any, subcommand: str, **options: Any) -> None:
        """Called by Django."""
        if isinstance(self.stdout._out, TextIOWrapper):
            self.stdout._out.reconfigure(errors="backslashreplace")  # routes may be in any script
        getattr(self, subcommand)(**options)

    def routes(
        self,
        *,
        as_json: bool,
        only_open: bool,
        fail_on_open: bool,
        fail_on_default: bool,
        ignore: list[str],
        **options: Any,
    ) -> None:
        """List every door; raises `CommandError` for those that must not be."""
        try:
            found = [door for door in doors() if not door.path.startswith(tuple(ignore))]
        except Exception as error:
            raise CommandError(f"The routes of the site cannot be read: {error!r}") from error
        shown = [door for door in found if door.is_open or not only_open]
        if as_json:
            self.stdout.write(json.dumps([door.as_dict() for door in shown], indent=2))
        else:
            table.write(HEADINGS, [door.as_row() for door in shown], self.stdout)
            self.stdout.write(f"\n{_summary(found)}")
        faults = _named("Nobody guards", [door for door in found if door.is_open])
        if fail_on_default:
            faults += _named(
                "Nothing but a default policy guards", [door for door in found if door.is_on_default]
            )
        if faults and (fail_on_open or fail_on_default):
            raise CommandError(f"{faults}Decorate what is there; with @public if everybody may pass.")

    def explain(
        self,
        *,
        path: str,
        user: str | None,
        session: str | None,
        header: list[str],
        protocol: Protocol,
        **options: Any,
    ) -> None:
        """Tell what a request would get."""
        try:
            lines = list(explain(Question(path, protocol, user, session, tuple(header))))
        except NoQuestion as error:
            raise CommandError(str(error)) from error
        except Exception as error:
            raise CommandError(f"The request cannot be explained: {error!r}") from error
        self.stdout.write("\n".join(lines))


def _everybodys_options() -> ArgumentParser:
    """What every command of Django's takes, for after a subcommand; it has no defaults."""
    command = BaseCommand()
    command.requires_system_checks = Command.requires_system_checks
    parser = command.create_parser("manage.py", "wsdeny", add_help=False)
    for action in parser._actions:
        # The default of the subcommand's would take the place of what was given before the subcommand.
        action.default = SUPPRESS
    return parser


def _summary(found: list[Door]) -> str:
    is_open = sum(door.is_open for door in found)
    public = sum(door.is_public for door in found)
    return f"{len(found)} doors: {len(found) - is_open - public} guarded, {public} public, {is_open} open."


def _named(fault: str, faulty: list[Door]) -> str:
    rows = [(door.protocol, door.path, door.endpoint) for door in faulty]
    lines = "".join(f"  {line}\n" for line in table.plain(rows)) if rows else ""
    return lines and f"{fault}:\n{lines}"
