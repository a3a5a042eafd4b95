"""Starts one lab platform by hand, over the embedded weights: to try a tool of one's own against a front.

scripts/lab openrouter --port 8100
scripts/lab azure --block azure-native-prompt --words glimmerdust
scripts/lab openrouter --inject "I will not talk about that." --words glimmerdust --requests-per-minute 5
"""

import argparse
import socket
import sys
import threading
from collections.abc import Sequence

from probe.errors import ProbeError, ServeError
from probe.lab.fronts.catalogue import FRONT_NAMES
from probe.lab.intake import dialect_of
from probe.lab.platform_spec import LabLimits, Platform, Screen
from probe.lab.server import LabServer
from probe.lab.shapes import BLOCK_SHAPES
from probe.resources import data_folder
from probe.serve.llamacpp import LlamaCppServer

MODEL = "toy"

_BASES = {
    "ollama-chat": "",
    "ollama-generate": "",
    "gemini": "/v1beta",
    "bedrock-converse": "",
    "anthropic-messages": "",
}
"""What the base address of a client ends with, where it is not ``/v1``."""


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    made = argparse.ArgumentParser(
        prog="scripts/lab",
        description="Serve one lab platform on loopback, over the embedded weights, until it is interrupted.",
    )
    made.add_argument("front", choices=FRONT_NAMES, help="whose wire format it speaks")
    made.add_argument("--port", type=int, default=8100, help="where it listens (8100); 0 is any free port")
    made.add_argument("--seed", type=int, default=0, help="makes the platform's draws repeatable")
    made.add_argument("--words", default="", help="act only on requests with one of these words (comma-separated)")
    deeds = made.add_mutually_exclusive_group()
    deeds.add_argument("--block", help=f"answer a declared block: one of {', '.join(sorted(BLOCK_SHAPES))}")
    deeds.add_argument("--inject", metavar="TEXT", help="answer this text in the model's place")
    deeds.add_argument("--redact", action="store_true", help="blot the words out of what the model sees")
    deeds.add_argument("--cut", action="store_true", help="end the model's answers early")
    made.add_argument(
        "--sloppy", action="store_true", help="hide the deed badly: at once, other keys, no tokens billed"
    )
    made.add_argument("--hidden", metavar="PROMPT", help="put this system prompt before every conversation")
    made.add_argument("--echo-hidden", action="store_true", help="show in the echo what the client sent")
    made.add_argument("--stream-fault", type=float, default=0.0, help="probability that the host fails in an answer")
    made.add_argument("--key", help="the only key that is let in")
    made.add_argument("--requests-per-minute", type=int)
    made.add_argument("--requests-per-day", type=int)
    made.add_argument("--tokens-per-minute", type=int)
    made.add_argument("--concurrency", type=int)
    made.add_argument("--credits", type=float, metavar="USD", help="what the account holds")
    return made


def platform_of(options: argparse.Namespace) -> Platform:
    """Return the platform that the options describe. Raises ``ServeError`` where they contradict each other."""
    words = tuple(word.strip() for word in options.words.split(",") if word.strip())
    chosen = {
        "declared_block": options.block is not None,
        "injected_text": options.inject is not None,
        "redaction": options.redact,
        "output_cut": options.cut,
    }
    action = next((name for name, is_chosen in chosen.items() if is_chosen), None)
    if words and action is None:
        raise ServeError("--words says on what to act, but nothing says how: add --block, --inject, --redact or --cut.")
    try:
        return Platform(
            "lab",
            front=options.front,
            screen=Screen(words) if action else None,
            action=action,  # type: ignore[arg-type]  # one of the names above
            block=options.block or "openrouter-moderation",
            texts=(options.inject,) if options.inject else (),
            envelope="sloppy" if options.sloppy else "matched",
            hidden_system=options.hidden,
            echo_hidden=options.echo_hidden,
            stream_fault=options.stream_fault,
            limits=LabLimits(
                requests_per_minute=options.requests_per_minute,
                requests_per_day=options.requests_per_day,
                tokens_per_minute=options.tokens_per_minute,
                concurrency=options.concurrency,
                credits_usd=options.credits,
                key=options.key,
            ),
        )
    except ValueError as error:
        raise ServeError(f"These options do not go together: {error}.") from None


def check_port(port: int) -> None:
    """Raise ``ServeError`` where something listens on a port already."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as tried:
        tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            tried.bind(("127.0.0.1", port))
        except OSError:
            raise ServeError(f"Port {port} is taken: name another one with --port, or 0 for any.") from None


def serve(options: argparse.Namespace, stop: threading.Event) -> None:
    """Serve the platform, say where, and return once ``stop`` is set."""
    platform = platform_of(options)
    check_port(options.port)
    weights = data_folder("backends") / "toy" / "toy.gguf"
    with LlamaCppServer(weights, model_id=MODEL, parallel=4) as upstream:
        assert upstream.info is not None
        lab = LabServer([platform], upstream.info.url, MODEL, seed=options.seed, port=options.port)
        with lab:
            base = f"{lab.url}/lab{_BASES.get(dialect_of(platform.front), '/v1')}"
            print(f"front    {platform.front}\nurl      {base}\nmodel    {MODEL}", flush=True)
            if dialect_of(platform.front) == "openai-chat":
                body = '{"model":"toy","messages":[{"role":"user","content":"How do I water roses?"}],"stream":true}'
                print(f"try it   curl -sN {base}/chat/completions -d '{body}'", flush=True)
            stop.wait()


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit status."""
    try:
        serve(parser().parse_args(arguments), threading.Event())
    except ProbeError as error:
        print(f"Error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        pass
    return 0


if __name__ == "__main__":
    sys.exit(main())
