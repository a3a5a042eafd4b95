"""``probe serve``."""

import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from probe.cli.options import json_option, print_json

if TYPE_CHECKING:
    from probe.serve.twin import Served, Server

_INTERRUPTED = 130
"""Exit status after Ctrl-C: 128 and the number of its signal."""


@click.command()
@click.argument("weights")
@click.option(
    "--with",
    "engine",
    type=click.Choice(["llamacpp", "vllm", "ollama"]),
    default=None,
    help="The server; without it the one that the weights go with.",
)
@click.option("--id", "model_id", default=None, help="Model id that requests use.")
@click.option("--port", type=click.IntRange(0, 65535), default=0, help="0 takes a free one.", show_default=True)
@click.option(
    "--context", type=click.IntRange(64), default=4096, show_default=True, help="Tokens of prompt and answer."
)
@click.option("--parallel", type=click.IntRange(1), default=4, show_default=True, help="Requests worked on at once.")
@click.option("--device", type=click.Choice(["auto", "cpu", "gpu"]), default="auto", show_default=True)
@click.option(
    "--template", type=click.Path(path_type=Path), default=None, help="Chat template in place of the weights' own."
)
@click.option(
    "--thinking",
    type=click.Choice(["off", "on", "default"]),
    default="off",
    show_default=True,
    help="Thinking mode, where the template has one; `default` leaves it to server and template.",
)
@click.option("--name", default="local", show_default=True, help="Name of the route that is printed.")
@click.option(
    "--log", "log_path", type=click.Path(path_type=Path), default=None, help="The server's own words go here."
)
@json_option
def command(
    weights: str,
    engine: Any,
    model_id: str | None,
    port: int,
    context: int,
    parallel: int,
    device: Any,
    template: Path | None,
    thinking: str,
    name: str,
    log_path: Path | None,
    as_json: bool,
) -> None:
    """Serve weights on this machine as a twin ought to, and print the route to paste into probe.toml.

    WEIGHTS is `toy` (the embedded ones), a GGUF file (llama.cpp), a model folder or a hub id such as
    Qwen/Qwen3-8B@REVISION (vLLM), or a name that Ollama has pulled. Log-probabilities are allowed, the chat template
    and its thinking mode are fixed, no default of a file replaces a parameter, and Ollama's cloud is off. The server
    listens on this machine only, until Ctrl-C.

    \b
    Examples:
      probe serve toy
      probe serve weights/qwen3-8b-q8_0.gguf --port 8090 --context 8192
      probe serve Qwen/Qwen3-8B@REVISION --device gpu
      probe serve qwen3:8b --with ollama --thinking off
    """
    from probe.serve.twin import Wanted, describe, make_server

    wanted = Wanted(
        weights=weights,
        engine=engine,
        model_id=model_id,
        port=port,
        context=context,
        parallel=parallel,
        device=device,
        template=template,
        thinking={"off": False, "on": True, "default": None}[thinking],
    )
    ready = False
    try:
        chosen, server = make_server(wanted, log_path)
        with server:
            served = describe(wanted, chosen, server)
            ready = True
            if as_json:
                _print_json(served, name)
            else:
                _print(served, name)
            _wait(server)
    except KeyboardInterrupt:
        if ready:
            click.echo("Stopped.", err=True)
            return
        click.echo("Stopped before the server was ready.", err=True)
        raise click.exceptions.Exit(_INTERRUPTED) from None


def _print_json(served: "Served", name: str) -> None:
    from dataclasses import asdict

    print_json({**asdict(served), "toml": served.route(name)})


def _print(served: "Served", name: str) -> None:
    click.echo(f"# {served.engine} {served.facts['version']} is ready. Paste this into probe.toml; stop with Ctrl-C.")
    for key, value in served.facts.items():
        if key != "version" and value:
            click.echo(f"#   {key}: {' '.join(str(value).split())}")
    click.echo(served.route(name))
    if "chat_template_kwargs" in served.request or "think" in served.request:
        click.echo("# The template has a thinking mode, fixed above: the hosted route needs the same mode to compare.")


def _wait(server: "Server") -> None:
    """Wait until the server ends by itself, which is an error."""
    from probe.errors import ServeError

    nothing = threading.Event()
    while (ended := server.ended()) is None:
        nothing.wait(0.2)
    raise ServeError(ended)
