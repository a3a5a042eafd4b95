"""All dialects by name."""

from collections.abc import Mapping

from probe.errors import CatalogueError
from probe.wire.dialect import Dialect
from probe.wire.ollama_chat import OllamaChat
from probe.wire.openai_chat import OpenAiChat

_DIALECTS: Mapping[str, Dialect] = {speaks.name: speaks for speaks in (OpenAiChat(), OllamaChat())}


def dialect(name: str) -> Dialect:
    """Return a dialect by name. Raises ``CatalogueError`` for a name that there is no code for."""
    try:
        return _DIALECTS[name]
    except KeyError:
        raise CatalogueError(f"There is no dialect {name!r}; there are: {', '.join(_DIALECTS)}.") from None
