"""Renders the chat template of weights: a conversation becomes the one text that the model reads.

Chat templates are Jinja. What they may use beyond it was set by ``transformers`` (``utils/chat_template_utils.py``,
``render_jinja_template``), and llama.cpp's engine follows: a sandbox whose values cannot be changed, blocks without the
line break after them (``trim_blocks``, ``lstrip_blocks``), ``break`` and ``continue``, ``generation`` blocks,
``raise_exception``, ``strftime_now``, and ``tojson`` that escapes nothing for HTML. The special tokens come from
``tokenizer_config.json``.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from pathlib import Path
from typing import Any, NoReturn

from jinja2 import TemplateError, nodes
from jinja2.ext import Extension
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from probe.errors import ConfigError, WireError
from probe.traces.values import Trace
from probe.wire.building import messages_of
from probe.wire.fields import NotJson, parse, table

_TOKENS = ("bos_token", "eos_token", "unk_token", "pad_token", "sep_token", "cls_token", "mask_token")
_CHAT = "default"
"""Which of several templates is for plain chats (``chat_template`` may be a list of names and templates)."""


@dataclass(frozen=True)
class ChatTemplate:
    """A template as it was read; ``tokens`` are the special tokens by the names that templates know them by.

    ``adds_bos``: whether servers put ``bos_token`` before the text by themselves, so that it must not begin with it.
    """

    text: str
    tokens: Mapping[str, str]
    adds_bos: bool = True
    where: str = "the chat template"

    def render(self, trace: Trace) -> str:
        """Return the prompt of a trace, up to where the answer begins. Raises ``WireError``.

        A ``bos_token`` at its very beginning is left out where servers add it (llama.cpp, vLLM and Ollama do, by the
        tokenizer's settings): two of them are another prompt.
        """
        variables = {**self.tokens, "messages": messages_of(trace), "add_generation_prompt": True}
        try:
            prompt = str(_compiled(self.text).render(variables))
        except TemplateError as error:
            raise WireError(f"Trace {trace.name!r} cannot be written by {self.where}: {_sentence(error)}.") from None
        except (ArithmeticError, LookupError, TypeError, ValueError, AttributeError, RecursionError) as error:
            words = f"{type(error).__name__}: {_sentence(error)}"
            raise WireError(f"Trace {trace.name!r} cannot be written by {self.where}: {words}.") from None
        bos = self.tokens.get("bos_token", "")
        return prompt.removeprefix(bos) if self.adds_bos else prompt


def load_template(path: str) -> ChatTemplate:
    """Read a Jinja file, or a ``tokenizer_config.json`` that holds a template. Raises ``ConfigError``."""
    place = Path(path).expanduser()
    try:
        changed = place.stat().st_mtime_ns
    except OSError as error:
        raise ConfigError(f"The chat template {path} cannot be read: {error.strerror or error}.") from None
    return _load(place, changed)


@lru_cache(maxsize=64)
def _load(path: Path, _changed: int) -> ChatTemplate:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"The chat template {path} cannot be read as UTF-8 text: {error}.") from None
    where = f"the chat template {path}"
    if path.suffix != ".json":
        return _checked(ChatTemplate(text, {}, where=where))
    try:
        config = table(parse(text))
    except NotJson as error:
        raise ConfigError(f"{path} is not JSON: {error}.") from None
    template = _template_of(config, path)
    tokens = {name: token for name in _TOKENS if (token := _token(config.get(name))) is not None}
    return _checked(ChatTemplate(template, tokens, config.get("add_bos_token") is not False, where))


def _template_of(config: Mapping[str, Any], path: Path) -> str:
    found = config.get("chat_template")
    if isinstance(found, list):
        named = {table(entry).get("name"): table(entry).get("template") for entry in found}
        found = named.get(_CHAT)
    if found is None:
        # Newer checkpoints keep it beside the configuration.
        beside = path.with_name("chat_template.jinja")
        try:
            return beside.read_text(encoding="utf-8-sig")
        except (OSError, UnicodeDecodeError):
            raise ConfigError(
                f"{path} holds no chat template, and there is no readable {beside.name} beside it."
            ) from None
    if not isinstance(found, str):
        raise ConfigError(f"{path}: chat_template must be a text, or a list with an entry named {_CHAT!r}.")
    return found


def _token(value: Any) -> str | None:
    text = table(value).get("content") if isinstance(value, dict) else value
    return text if isinstance(text, str) else None


def _checked(template: ChatTemplate) -> ChatTemplate:
    try:
        _compiled(template.text)
    except TemplateError as error:
        raise ConfigError(f"{template.where[0].upper()}{template.where[1:]} is no Jinja: {_sentence(error)}.") from None
    return template


class _Generation(Extension):
    """``{% generation %}``, which marks what an assistant said for training and writes its content here."""

    tags = {"generation"}  # noqa: RUF012 - declared by Jinja

    def parse(self, parser: Parser) -> list[nodes.Node]:
        """Take the block apart and keep its inside."""
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


@lru_cache(maxsize=64)
def _compiled(text: str) -> Any:
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True,
        lstrip_blocks=True,
        extensions=["jinja2.ext.loopcontrols", _Generation],
        autoescape=False,
    )
    environment.filters["tojson"] = _tojson
    environment.globals["raise_exception"] = _raise
    environment.globals["strftime_now"] = _now
    return environment.from_string(text)


def _tojson(
    value: Any, ensure_ascii: bool = False, indent: int | None = None, separators: Any = None, sort_keys: bool = False
) -> str:
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _raise(message: str) -> NoReturn:
    raise TemplateError(message)


def _now(form: str) -> str:
    # As transformers does it: the day where the template is rendered.
    return datetime.now().astimezone().strftime(form)


def _sentence(error: BaseException) -> str:
    return " ".join(str(error).split()).rstrip(".") or type(error).__name__
