"""``probe init``."""

from pathlib import Path

import click

from probe.errors import ConfigError

TEMPLATE = """\
# A study: the same open weights, served locally and through hosted routes.
# `probe routes --check` tells whether each can be used; then `probe run` and `probe analyze`.

[run]
packs    = ["fictional"]      # packs that ship, or files of your own: "my-traces.jsonl"
repeats  = 1                  # how often each trace goes over each route
seed     = 0                  # of the random order
database = "probe.db"

# The twin: the weights without a platform in between. It should be able to score texts: llama.cpp or vLLM.
[routes.local]
backend = "llamacpp"          # or "vllm", "ollama", "openai" (anything compatible)
url     = "http://127.0.0.1:8080/v1"
model   = "qwen3-8b"          # the name that the server knows
weights = "Qwen/Qwen3-8B"     # hub id, with @revision where you know it
role    = "local"
pace    = { concurrency = 4 }

# A hosted route to the same weights. Its key comes from the environment: OPENROUTER_API_KEY.
# One route per provider of a model, each pinned to it:
#   probe routes expand openrouter qwen/qwen3-8b --twin local --write
[routes.openrouter]
backend = "openrouter"
model   = "qwen/qwen3-8b"
weights = "Qwen/Qwen3-8B"
twin    = "local"
request = { provider = { only = ["deepinfra"], allow_fallbacks = false } }   # pin one provider, or you compare several
pace    = { concurrency = 2, requests_per_minute = 20 }
"""


@click.command()
@click.argument("path", type=click.Path(path_type=Path), default=Path("probe.toml"))
@click.option("--force", is_flag=True, help="Overwrite a file that is there.")
def command(path: Path, force: bool) -> None:
    """Write a commented probe.toml to edit.

    \b
    Examples:
      probe init
      probe init studies/qwen.toml
    """
    if path.exists() and not force:
        raise ConfigError(f"{path} is there already: name another file, or overwrite it with --force.")
    try:
        path.write_text(TEMPLATE, encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{path} cannot be written: {error.strerror}.") from None
    click.echo(f"Wrote {path}. Edit the routes, then: probe routes --check")
