"""All dialects by name."""

from collections.abc import Mapping

from probe.errors import CatalogueError
from probe.wire.anthropic_messages import AnthropicMessages
from probe.wire.bedrock_converse import BedrockConverse
from probe.wire.dialect import Dialect
from probe.wire.gemini import Gemini
from probe.wire.ollama_chat import OllamaChat
from probe.wire.ollama_generate import OllamaGenerate
from probe.wire.openai_chat import OpenAiChat
from probe.wire.openai_completions import OpenAiCompletions
from probe.wire.openai_responses import OpenAiResponses

_ALL: tuple[Dialect, ...] = (
    OpenAiChat(),
    OpenAiCompletions(),
    OpenAiResponses(),
    OllamaChat(),
    OllamaGenerate(),
    AnthropicMessages(),
    Gemini(),
    BedrockConverse(),
)
_DIALECTS: Mapping[str, Dialect] = {speaks.name: speaks for speaks in _ALL}


def dialect(name: str) -> Dialect:
    """Return a dialect by name. Raises ``CatalogueError`` for a name that there is no code for."""
    try:
        return _DIALECTS[name]
    except KeyError:
        raise CatalogueError(f"There is no dialect {name!r}; there are: {', '.join(_DIALECTS)}.") from None
