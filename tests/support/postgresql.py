"""A PostgreSQL of a test's own, made by the programs of Debian's package."""

import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
from glob import glob
from pathlib import Path

from .clients import GUARD

_PATH = os.pathsep.join([os.environ.get("PATH", ""), *glob("/usr/lib/postgresql/*/bin")])
#: PostgreSQL refuses to run as root.
_USER = "postgres"
_AS_USER = ["setpriv", f"--reuid={_USER}", f"--regid={_USER}", "--init-groups"] if os.geteuid() == 0 else []


def what_is_missing() -> str | None:
    """Why this machine cannot start one; None if it can."""
    missing = [name for name in ("initdb", "pg_ctl", *_AS_USER[:1]) if shutil.which(name, path=_PATH) is None]
    if missing:
        return f"{', '.join(missing)} not installed"
    if _AS_USER and _USER not in {entry.pw_name for entry in pwd.getpwall()}:
        return f"no user {_USER}, and PostgreSQL does not run as root"
    return None


class PostgreSQL:
    """A server that a test may stop, pause and start again, as `tests.support.live.Redis`."""

    def __init__(self):
        # Not below pytest's own directory, which is closed to other users.
        self._directory = Path(tempfile.mkdtemp(prefix="wsdeny-"))
        if _AS_USER:
            shutil.chown(self._directory, _USER, _USER)
        with socket.create_server(("127.0.0.1", 0)) as listener:
            self.port = listener.getsockname()[1]
        self._run("initdb", "--no-sync", "--auth=trust", f"--username={_USER}")

    def start(self):
        options = f"-p {self.port} -c listen_addresses=127.0.0.1 -c unix_socket_directories= -c fsync=off"
        self._run("pg_ctl", "start", "--wait", f"--log={self._directory}/log", f"--options={options}")

    def stop(self):
        self._run("pg_ctl", "stop", "--mode=immediate")

    def pause(self):
        self._signal(signal.SIGSTOP)

    def go_on(self):
        self._signal(signal.SIGCONT)

    def remove(self):
        shutil.rmtree(self._directory)

    def _run(self, program, *arguments):
        command = [*_AS_USER, shutil.which(program, path=_PATH), f"--pgdata={self._directory}/data", *arguments]
        subprocess.run(command, cwd=self._directory, stdout=subprocess.DEVNULL, check=True, timeout=GUARD)

    def _signal(self, number):
        """Send a signal to the server and its processes, of which each has a session of its own."""
        server = (self._directory / "data" / "postmaster.pid").read_text().split()[0]
        os.kill(int(server), number)
        for stat in Path("/proc").glob("[0-9]*/stat"):
            try:
                parent = stat.read_text().rpartition(")")[2].split()[1]
            except OSError:  # It has ended.
                continue
            if parent == server:
                os.kill(int(stat.parent.name), number)
