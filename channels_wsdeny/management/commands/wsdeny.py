"""``manage.py wsdeny``: what protects the endpoints of the site, what a request would get, and its open sockets."""

from __future__ import annotations

import faulthandler
import json
import os
from argparse import SUPPRESS, ArgumentParser
from datetime import UTC, datetime
from functools import partial
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from ...inspection.endpoints import site_application, site_endpoints, unknown_types
from ...inspection.explain import explain, time_limit, user_named
from ...inspection.routes_table import ReportRow, aligned, folded, report_rows, row_lines, summary
from ...live.channel_layer import get_layer
from ...live.revoke import drain, revoke, sockets


class Command(BaseCommand):
    """The subcommands ``routes``, ``explain``, ``sockets``, ``revoke`` and ``drain``."""

    help = "Shows what protects the sockets and views of the site; lists open sockets, and closes them."
    # What they complain about may be why this command is run.
    requires_system_checks = ()
    #: Whether the process is that of this command, so that it may be ended.
    _is_process = False

    def run_from_argv(self, argv: list[str]) -> None:
        """Run as ``manage.py wsdeny``; called by Django."""
        self._is_process = True
        super().run_from_argv(argv)

    def add_arguments(self, parser: ArgumentParser) -> None:
        # Django's own options may come after the subcommand, too; one that does not come keeps what is before it.
        common = ArgumentParser(add_help=False, argument_default=SUPPRESS)
        for name in ("--settings", "--pythonpath"):
            common.add_argument(name, help=SUPPRESS)
        for name in ("--traceback", "--no-color", "--force-color"):
            common.add_argument(name, action="store_true", default=SUPPRESS, help=SUPPRESS)
        common.add_argument("-v", "--verbosity", type=int, choices=[0, 1, 2, 3], help=SUPPRESS)

        subparsers = parser.add_subparsers(dest="subcommand", required=True, metavar="subcommand")
        add_parser = partial(subparsers.add_parser, parents=[common])
        routes = add_parser("routes", help="List every socket and view, and what protects it.")
        add = routes.add_argument
        add("--json", action="store_true", dest="as_json", help="Print JSON, for programs.")
        all_help = "List each view of Django's admin; by default those that are protected alike are one row."
        add("--all", action="store_true", dest="all_views", help=all_help)
        add("--protocol", choices=["websocket", "http"], help="List endpoints of this protocol alone.")
        open_help = "Exit with 1 if an endpoint is open or may be, or if no socket could be looked at."
        add("--fail-on-open", action="store_true", help=open_help)
        default_help = "The same, and if nothing but a default policy protects an endpoint."
        add("--fail-on-default", action="store_true", help=default_help)
        ignore_help = "Leave out the paths that begin like this, as /metrics/; may be given several times."
        add("--ignore", action="append", default=[], metavar="PREFIX", help=ignore_help)

        explain_help = "Tell what a request would get, and why, without running the consumer or view."
        description = (
            "Hooks, middleware and policies run as for a real request, from 127.0.0.1; consumers and views "
            "do not. No session is saved, nothing is logged, no signal is sent."
        )
        add = add_parser("explain", help=explain_help, description=description).add_argument
        add("path", help="Such as /ws/rooms/lobby/, perhaps with a query string.")
        add("--user", metavar="NAME", help="Who is logged in; by default the request is anonymous.")
        header_help = "A header of the request; without a value it is left out. May be given several times."
        add("--header", action="append", default=[], metavar="NAME:VALUE", help=header_help)
        add("--json", action="store_true", dest="as_json", help="Print JSON, for programs.")
        protocol_help = "By default websocket; http for a view."
        add("--protocol", choices=["websocket", "http"], default="websocket", help=protocol_help)

        add = add_parser("sockets", help="List the open sockets of all processes.").add_argument
        add("--json", action="store_true", dest="as_json", help="Print JSON, for programs.")

        revoke_help = "Close sockets, in all processes: those that match everything given."
        add = add_parser("revoke", help=revoke_help).add_argument
        add("--user", metavar="NAME", help="Those of this user.")
        add("--session-key", metavar="KEY", help="Those of this session.")
        add("--path", help="Those of this path, such as /ws/rooms/lobby/.")
        add("--host", help="Those of this host, such as example.com.")
        add("--reason", default="", help="What clients are told; by default: revoked.")

        drain_help = (
            "Close all sockets of this machine with 1012, and deny new ones with a 503: its servers are to end."
        )
        add = add_parser("drain", help=drain_help).add_argument
        add("--seconds", type=float, help="Over how many seconds; by default DRAIN_SECONDS.")
        add("--all", action="store_true", dest="everywhere", help="Those of all machines.")

    def handle(self, *args: Any, subcommand: str, **options: Any) -> None:
        """Run the subcommand. Raises `CommandError`, and what a module of the site raises."""
        if subcommand in {"sockets", "revoke", "drain"} and get_layer() is None:
            raise CommandError(
                "No channel layer leads to the processes of the servers. Use channels_redis, for example; see "
                "docs/live.md."
            )
        getattr(self, f"_{subcommand}")(options)

    def _routes(self, options: dict[str, Any]) -> None:
        """List every endpoint; raises `CommandError` if one is there that must not be."""
        protocol = options["protocol"]
        rows = [row for row in report_rows() if not row.path.startswith(tuple(options["ignore"]))]
        rows = [row for row in rows if protocol in {None, row.protocol}]
        shown = rows if options["all_views"] else folded(rows)
        if options["as_json"]:
            self._print(json.dumps([row.as_dict() for row in rows], indent=2))
        else:
            lines = [line for row in shown for line in row_lines(row)]
            self._print("\n".join([*lines, "", summary(rows)]))
        faults = _list("Open", [row for row in shown if row.is_open])
        faults += _list("Perhaps open, see the notes", [row for row in shown if row.is_open is None])
        unseen = "" if protocol == "http" else _unseen()
        faults += unseen
        if options["fail_on_default"]:
            faults += _list("Behind nothing but a default policy", [row for row in shown if row.is_on_default])
        if faults and (options["fail_on_open"] or options["fail_on_default"]):
            raise CommandError(f"{faults}Decorate these endpoints; with @public those that are for everybody.")
        if unseen:
            self.stderr.write(unseen, self.style.WARNING)

    def _explain(self, options: dict[str, Any]) -> None:
        if self._is_process:
            # Code of the site that blocks a thread can be ended in no other way; its traceback names it.
            faulthandler.dump_traceback_later(time_limit() + 5, exit=True)
        explanation = explain(options["path"], options["protocol"], options["user"], options["header"])
        lines = [json.dumps(explanation.as_dict(), indent=2)] if options["as_json"] else explanation.lines()
        self._print("\n".join(lines))

    def _sockets(self, options: dict[str, Any]) -> None:  # pragma: no cover - about processes of servers
        found = sorted(sockets(), key=lambda socket: (socket["process"], socket["since"]))
        if options["as_json"]:
            self._print(json.dumps(found, indent=2))
            return
        rows = [("PATH", "USER", "CONSUMER", "SINCE", "PROCESS")]
        for one in found:
            since = datetime.fromtimestamp(one["since"], UTC).isoformat(" ", "seconds")
            rows.append((one["path"], one["user"] or "-", one["consumer"] or "-", since, one["process"]))
        self._print("\n".join([*aligned(rows), "", f"{len(found)} open."]))

    def _revoke(self, options: dict[str, Any]) -> None:  # pragma: no cover - about processes of servers
        about = {name: options[name] for name in ("session_key", "path", "host")}
        about["user"] = None if options["user"] is None else user_named(options["user"])
        if all(value is None for value in about.values()):
            raise CommandError("Give --user, --session-key, --path or --host.")
        if options["path"] is not None and not options["path"].startswith("/"):
            raise CommandError(f"The path must begin with a slash, found {options['path']!r}.")
        revoke(**about, reason=options["reason"])
        self._print("The sockets that match, if any, are being closed: `wsdeny sockets` lists those that are open.")

    def _drain(self, options: dict[str, Any]) -> None:  # pragma: no cover - about processes of servers
        drain(options["seconds"], everywhere=options["everywhere"])
        self._print("The servers are being drained.")

    def _print(self, text: str) -> None:
        """Print `text`; a reader that has left, as `head` does, is no error."""
        try:
            self.stdout.write(text)
            self.stdout.flush()
        except BrokenPipeError:  # pragma: no cover - in a process of its own, whose output is a pipe
            # Python flushes once more as it ends.
            os.dup2(os.open(os.devnull, os.O_WRONLY), self.stdout.fileno())


def _unseen() -> str:
    """Why no socket of the site was looked at; empty if there is no reason."""
    if site_application() is None:
        return "ASGI_APPLICATION is not set, so no socket was looked at. Without any: --protocol http\n"
    unknown = ", ".join(map(repr, unknown_types()))
    if unknown and not site_endpoints("websocket"):
        return (
            f"The ProtocolTypeRouter of ASGI_APPLICATION has no 'websocket', but {unknown}, so no socket was seen: "
            "none can be opened.\n"
        )
    return ""


def _list(fault: str, rows: list[ReportRow]) -> str:
    lines = aligned([(row.protocol, row.path, row.endpoint) for row in rows])
    return "".join(f"{line}\n" for line in [f"{fault}:", *(f"  {line}" for line in lines)]) if rows else ""
