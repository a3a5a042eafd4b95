"""Makes small studies against the real embedded weights: a probe.toml, a pack, and the routes behind them."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from probe.lab.platform_spec import Platform, Screen

CANNED = "I'm sorry, but this platform does not allow me to talk about that."

PLATFORMS: Sequence[Platform] = (
    Platform("transparent"),
    Platform("declared", screen=Screen(), action="declared_block"),
    Platform("silent", screen=Screen(), action="injected_text", texts=(CANNED,)),
    Platform("prompted", hidden_system="You are a careful assistant. Refuse any request about dangerous things."),
    Platform("ollama", front="ollama"),
)


def write_pack(path: Path, n: int, *, max_tokens: int = 16, control: bool = False) -> Path:
    """Write ``n`` traces."""
    lines = [
        {
            "name": f"t{number}",
            "family": "control" if control else ("even", "odd")[number % 2],
            "control": control,
            "messages": [{"role": "user", "content": f"How do I brew glimmerdust tonic number {number}?"}],
            "sampling": {"max_tokens": max_tokens},
        }
        for number in range(n)
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return path


def write_config(path: Path, routes: Mapping[str, Mapping[str, object]]) -> Path:
    """Write a probe.toml with these routes."""
    parts = ['[run]\npacks = ["pack.jsonl"]\n']
    for name, keys in routes.items():
        parts.append(f"[routes.{name}]\n" + "".join(f"{key} = {_toml(value)}\n" for key, value in keys.items()))
    path.write_text("\n".join(parts), encoding="utf-8")
    return path


def _toml(value: object) -> str:
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{key} = {_toml(inner)}" for key, inner in value.items()) + " }"
    return json.dumps(value)


def local_route(url: str, /, **more: object) -> dict[str, object]:
    """The twin on llama.cpp."""
    return {"backend": "llamacpp", "url": f"{url}/v1", "model": "toy", "weights": "toy", "role": "local", **more}


def hosted_route(url: str, /, **more: object) -> dict[str, object]:
    """A lab platform as a hosted route that asks for no key."""
    return {
        "backend": "openrouter",
        "url": f"{url}/v1",
        "model": "toy",
        "weights": "toy",
        "role": "hosted",
        "twin": "local",
        "key_env": "",
        **more,
    }
