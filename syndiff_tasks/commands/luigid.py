"""``syndiff_tasks luigid``: Luigi's central scheduler on 127.0.0.1, with the state, history and metrics of luigi.cfg.

What it does beyond luigi's own `luigid`: it makes the folders that luigi.cfg names, stays on this host, keeps its state
through a crash too, records the history in SQLite with SQLAlchemy 2, shows metrics, and serves the products, so that
the pages of finished templates are a click away from their tasks. See docs/operations.md.
"""

import functools
import importlib.util
import ipaddress
import logging
import os
import socket
import sqlite3
import sys
from pathlib import Path

import luigi.server
import sqlalchemy
import tornado.ioloop
import tornado.web
from luigi import db_task_history
from luigi.configuration import get_config
from luigi.scheduler import Scheduler

SECONDS_BETWEEN_SAVES = 60

upgrade_schema_of_luigi = db_task_history._upgrade_schema
app_of_luigi = luigi.server.app


def run(options):
    """Serve until SIGTERM or SIGINT.

    Parameters
    ----------
    options : argparse.Namespace
        As `cli` declares them.

    Returns
    -------
    code : int
        0.
    """
    if not options.open_to_others:
        _refuse_to_be_reached_by_others(options.address)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(levelname)s: %(message)s")
    logging.getLogger("tornado.access").setLevel(logging.WARNING)  # some ten requests a task
    config = get_config()
    for path in _files(config):
        _make_private(path.parent)
    _refuse_state_of_others(Path(config.get("scheduler", "state_path")))
    if importlib.util.find_spec("prometheus_client") and not config.has_option("scheduler", "metrics_collector"):
        config.set("scheduler", "metrics_collector", "prometheus")
    _record_history_with_sqlalchemy_2()
    products = Path(options.products or config.get("syndiff", "data_root")).absolute()
    luigi.server.app = functools.partial(_app_with_products, products)
    scheduler = Scheduler()
    # luigid saves when it is asked to stop; after a power cut or a SIGKILL, workers would find no work left.
    tornado.ioloop.PeriodicCallback(scheduler.dump, 1000 * SECONDS_BETWEEN_SAVES).start()
    try:
        luigi.server.run(api_port=options.port, address=options.address, scheduler=scheduler)
    except OSError as error:
        place = f"{options.address}:{options.port}"
        sys.exit(f"luigid: cannot listen on {place}: {error.strerror}; is another one running there?")
    return 0


def _refuse_to_be_reached_by_others(address):
    addresses = {place[4][0] for place in socket.getaddrinfo(address or None, 0, flags=socket.AI_PASSIVE)}
    outside = sorted(one for one in addresses if not ipaddress.ip_address(one.partition("%")[0]).is_loopback)
    if outside:
        sys.exit(
            f"luigid: {address or 'every interface'} ({', '.join(outside)}) can be reached by other hosts, and luigid "
            "asks nobody who they are: whoever reaches the port can change tasks and run code as you. Stay on "
            "127.0.0.1 and use an ssh tunnel; or, behind a firewall, add --open-to-others (docs/operations.md)"
        )


def _files(config):
    """Return the files that luigid will write, as luigi.cfg names them."""
    files = [Path(config.get("scheduler", "state_path"))]
    if config.getboolean("scheduler", "record_task_history", False):
        history = sqlalchemy.make_url(config.get("task_history", "db_connection"))
        if history.get_backend_name() == "sqlite" and history.database:
            files.append(Path(history.database))
    return files


def _make_private(folder):
    """Make a folder that only its owner may enter; one that is there stays as it is."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    folder.mkdir(mode=0o700, exist_ok=True)


def _refuse_state_of_others(state):
    """Refuse a state file that another user may have put there: luigi unpickles it, which runs what it holds."""
    why = "luigid runs what its state file holds, so that file and its folder must be yours alone"
    folder = state.parent.stat()
    if folder.st_uid != os.geteuid():
        sys.exit(f"luigid: {state.parent} belongs to another user; {why}: give another state_path in luigi.cfg")
    if folder.st_mode & 0o077:
        sys.exit(
            f"luigid: {state.parent} is open to other users (mode {folder.st_mode & 0o777:o}); {why}. If nobody else "
            f"may have written there: chmod 700 {state.parent}; else give another state_path in luigi.cfg"
        )
    if state.exists() and (state.stat().st_uid != os.geteuid() or state.stat().st_mode & 0o022):
        sys.exit(
            f"luigid: {state} belongs to another user or may be written by others; {why}: delete it, and the tasks "
            "that are under way are planned again"
        )


class _ProductHandler(tornado.web.StaticFileHandler):
    """Serve files below the data root, without hidden ones: temporaries, and manifests beside products."""

    async def get(self, path, include_body=True):
        """Answer 404 for what is hidden, and for names that no file can have."""
        if "\0" in path or any(part.startswith(".") for part in path.split("/")):
            raise tornado.web.HTTPError(404)
        await super().get(path, include_body)


def _app_with_products(products, scheduler):
    """Return luigi's own pages, and the products under the address to which their tasks link."""
    app = app_of_luigi(scheduler)
    app.add_handlers(".*", [(r"/products/(.*)", _ProductHandler, {"path": str(products)})])
    return app


def _record_history_with_sqlalchemy_2():
    """Replace what stops luigi 3.8.1 on SQLite with SQLAlchemy 2 (github.com/spotify/luigi/issues/3227)."""
    db_task_history._upgrade_schema = _upgrade_schema
    sqlalchemy.event.listen(sqlalchemy.Engine, "connect", _spare_the_disk)


def _upgrade_schema(engine):
    if engine.dialect.name != "sqlite":
        upgrade_schema_of_luigi(engine)
        return
    # A database that luigi has just made is up to date; one of luigi 1 is not, and SQLite cannot change its columns.
    if "task_id" not in {column["name"] for column in sqlalchemy.inspect(engine).get_columns("tasks")}:
        sys.exit(f"luigid: {engine.url.database} is the history of a luigi before 2.0; move it away and start again")


def _spare_the_disk(connection, _record):
    # The scheduler answers nobody while it waits for the disk, three times a task, and the history is no truth to lose.
    if isinstance(connection, sqlite3.Connection):
        connection.execute("PRAGMA synchronous = OFF")
