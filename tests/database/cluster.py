"""How does a test get a PostgreSQL of its own?

The server of the Debian package `postgresql` is started on a directory of the test, reachable by a Unix socket in there
and by nothing else; no cluster of the system is touched. PostgreSQL refuses to run as root, so root runs it as the user
`postgres`, which the package brings.
"""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg

OWNER = "postgres"
ROLE = "tidelog"
SETTINGS = {
    "listen_addresses": "",
    "max_connections": "60",
    "shared_buffers": "16MB",
    "fsync": "off",  # clients are killed here, never the machine
    "jit": "off",
    "client_connection_check_interval": "100ms",
}


def binaries() -> Path:
    """The newest server that is installed. Raises RuntimeError, saying what to install."""
    found = [path.parent for path in Path("/usr/lib/postgresql").glob("*/bin/postgres")]
    if not found:
        raise RuntimeError(
            "no PostgreSQL server in /usr/lib/postgresql: apt-get install postgresql, or .ci/run tools as root"
        )
    return max(found, key=lambda path: float(path.parent.name))


class Server:
    """A server and its directory; made by `server`."""

    def __init__(self, folder: Path) -> None:
        """Makes the cluster in `folder`, which is empty, and starts it."""
        self.folder = folder
        self.conninfo = f"host={folder} user={ROLE}"
        """How to connect to it as its superuser; add dbname=."""
        self._where: dict[str, Any] = {"cwd": folder, "stdin": subprocess.DEVNULL}
        if os.geteuid() == 0:
            entry = pwd.getpwnam(OWNER)
            os.chown(folder, entry.pw_uid, entry.pw_gid)
            self._where.update(user=entry.pw_uid, group=entry.pw_gid, extra_groups=[])
        initdb = [binaries() / "initdb", "-D", folder / "data", "-U", ROLE, "-A", "trust", "-E", "UTF8", "--no-sync"]
        done = subprocess.run([*initdb, "--locale=C"], capture_output=True, text=True, timeout=60, **self._where)
        if done.returncode != 0:
            raise RuntimeError(f"initdb failed with exit code {done.returncode}:\n{done.stdout}{done.stderr}")
        self.start()

    def start(self) -> None:
        """Starts it, and waits until it answers."""
        options = [word for name, value in SETTINGS.items() for word in ("-c", f"{name}={value}")]
        command = [binaries() / "postgres", "-D", self.folder / "data", "-k", self.folder, *options]
        said = self.folder / "server.log"
        with open(said, "ab") as log:
            self._running = subprocess.Popen(command, stdout=log, stderr=log, **self._where)
        until = time.monotonic() + 30
        while True:
            try:
                psycopg.connect(f"{self.conninfo} dbname=postgres").close()
                return
            except psycopg.OperationalError as error:
                if self._running.poll() is not None or time.monotonic() > until:
                    raise RuntimeError(f"PostgreSQL did not start: {error}\n{said.read_text()}") from None
            time.sleep(0.02)

    def crash(self) -> None:
        """It drops everything it is doing; the next start recovers."""
        self._running.send_signal(signal.SIGQUIT)
        try:
            self._running.wait(20)
        except subprocess.TimeoutExpired:
            self._running.kill()
            self._running.wait()


@contextmanager
def server() -> Iterator[Server]:
    """A running server, which is gone afterwards."""
    folder = Path(tempfile.mkdtemp(prefix="tidelog-pg-"))  # a short path: sockets have at most 107 bytes
    folder.chmod(0o755)
    try:
        made = Server(folder)
        try:
            yield made
        finally:
            made.crash()  # nothing of it is kept
    finally:
        shutil.rmtree(folder)


def database(server: Server) -> str:
    """An empty database; answers how to connect to it. It is the same one each time: making one takes a while."""
    conninfo = f"{server.conninfo} dbname=postgres"
    with psycopg.connect(conninfo, autocommit=True) as db:
        # What the killed had asked for may still be going on.
        db.execute(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE backend_type = 'client backend'"
            " AND pid <> pg_backend_pid()"
        )
        db.execute("DROP SCHEMA public CASCADE")
        db.execute("CREATE SCHEMA public")
    return conninfo
