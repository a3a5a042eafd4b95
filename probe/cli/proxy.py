"""``probe proxy``."""

import threading
from pathlib import Path

import click

from probe.cli.options import config_option


@click.command()
@config_option
@click.option(
    "--db", "database", type=click.Path(path_type=Path), envvar="PROBE_DB", help="The study's database. [env: PROBE_DB]"
)
@click.option("--port", type=click.IntRange(0, 65535), default=8080, show_default=True, envvar="PROBE_PORT")
def command(config_path: Path, database: Path | None, port: int) -> None:
    """Serve every route at http://127.0.0.1:PORT/<route>/ to any client, and record what crosses.

    The key of a route is added on the way out; what the client sends as its key is dropped. Stop it with Ctrl-C.

    \b
    Examples:
      probe proxy
      OPENAI_BASE_URL=http://127.0.0.1:8080/local/v1 python my_script.py
    """
    from probe.config import load_config
    from probe.proxy.server import ProxyServer
    from probe.proxy.table import RouteTable
    from probe.runs.runner import RecordingSink
    from probe.store.lock import RunLock
    from probe.store.store import Store
    from probe.store.writer import Writer

    config = load_config(config_path)
    found = database or config_path.parent / config.database
    lock = RunLock(found)
    with Store.open(found) as store:
        for route in config.routes.values():
            store.add_weights(route.weights_row)
            store.add_route(route.row)
    with Writer(found, lock=lock) as writer:
        sink = RecordingSink(writer)
        table = RouteTable(route.target for route in config.routes.values())
        with ProxyServer(table, sink, port=port) as server:
            click.echo(f"Recording into {found}. Base URLs:")
            for name in table.names():
                click.echo(f"  {server.url}{table.client_base(name)}")
            _wait(sink)
    if sink.failure is not None:
        raise sink.failure


def _wait(sink: "object") -> None:
    """Wait for Ctrl-C, or for the store to fail: a proxy that cannot record must not go on."""
    nothing = threading.Event()
    try:
        while getattr(sink, "failure", None) is None:
            nothing.wait(0.2)
    except KeyboardInterrupt:
        click.echo("Stopped.")
