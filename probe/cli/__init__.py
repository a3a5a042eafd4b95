"""The command ``probe``: one file per command group, loaded only when it is called, so that ``--help`` stays fast."""

import importlib
import io
import os
import sys
from collections.abc import Mapping

import click

from probe import __version__
from probe.errors import ProbeError

COMMANDS: Mapping[str, tuple[str, str]] = {
    "demo": ("probe.cli.demo", "Run the whole thing on embedded weights: no key, no GPU, no network."),
    "init": ("probe.cli.init", "Write a commented probe.toml."),
    "routes": ("probe.cli.routes", "List the routes; with --check ask each whether it can be used."),
    "backends": ("probe.cli.backends", "List the kinds of servers and providers; explain one."),
    "serve": ("probe.cli.serve", "Serve local weights as a twin, and print the route to them."),
    "plan": ("probe.cli.plan", "How many pairs, requests, tokens, days and money an answer takes."),
    "run": ("probe.cli.run", "Send the traces over all routes and record what comes back."),
    "gate": ("probe.cli.gate", "Ask whether a hosted route serves the same weights as its twin."),
    "proxy": ("probe.cli.proxy", "Serve the routes to any client, and record."),
    "analyze": ("probe.cli.analyze", "Judge, gather evidence, attribute; print the effects."),
    "show": ("probe.cli.show", "Show one exchange with its evidence card."),
    "report": ("probe.cli.report", "Write the HTML report."),
    "bench": ("probe.cli.bench", "Measure the verdicts on lab platforms whose deeds are known."),
    "manifest": ("probe.cli.manifest", "Show what a run was made with; compare two runs."),
    "rerun": ("probe.cli.rerun", "Send the bytes of a manifest again."),
    "verify": ("probe.cli.verify", "Check the database: every byte, every reference."),
}


class _Lazy(click.Group):
    """A group that imports a command's module when it is needed."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the commands in the order in which a newcomer meets them."""
        del ctx
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import and return one command."""
        del ctx
        if cmd_name not in COMMANDS:
            return None
        command = importlib.import_module(COMMANDS[cmd_name][0]).command
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands without importing them."""
        del ctx
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])


@click.group(cls=_Lazy, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, prog_name="probe")
def cli() -> None:
    """Tell refusals that a serving platform injected from refusals that the model wrote.

    The same traces go to the same open weights locally and through hosted routes; every request and response is
    recorded; because the weights are at hand, the probe can ask whether they would have written a given refusal.

    \b
    Start here:
      probe demo                 the whole pipeline on embedded weights
      probe init                 a commented probe.toml to edit
      probe run && probe analyze your own routes
    """


def main() -> None:
    """Run the command; a user's mistake becomes one sentence and exit status 1, never a traceback."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # A terminal or a pipe that cannot show "−" or a model's words must not end a command.
            stream.reconfigure(errors="replace")
    try:
        # Outside its standalone mode click returns the status of Exit instead of leaving.
        status = cli(standalone_mode=False)
        sys.exit(status if isinstance(status, int) else 0)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except ProbeError as error:
        click.echo(f"Error: {error}", err=True)
        sys.exit(1)
    except (KeyboardInterrupt, click.Abort):
        click.echo("Interrupted. What was recorded is in the database; the same command goes on from there.", err=True)
        sys.exit(130)
    except BrokenPipeError:
        # The reader (head, less) has seen enough; Python would complain again while flushing at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
