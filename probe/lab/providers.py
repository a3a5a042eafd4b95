"""Who serves the model behind a router: the hosts that a lab platform lists, pins and bills."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Provider:
    """One host of the model, as OpenRouter lists it.

    ``tag`` is what a request pins (``deepinfra/fp8``); its part before the slash is the provider's slug. Prices are US
    dollars per token. ``moderated``: OpenRouter moderates requests before it passes them on. ``share`` is how often a
    request goes there that does not say where to, beside the shares of the others. ``status`` is OpenRouter's number
    (0 is well, below that it is down).
    Source: OpenRouter ``openapi/openapi.yaml`` PublicEndpoint; ``guides/routing/provider-selection.mdx``.
    """

    name: str = "Lab"
    tag: str = "lab"
    quantization: str = "unknown"
    context_length: int = 2048
    prompt_price: float = 0.0
    completion_price: float = 0.0
    moderated: bool = False
    share: float = 1.0
    status: int = 0

    @property
    def slug(self) -> str:
        """Return the name of the host without the variant."""
        return self.tag.partition("/")[0]

    def cost(self, prompt_tokens: int, completion_tokens: int) -> float:
        """Return what an answer costs in US dollars."""
        return prompt_tokens * self.prompt_price + completion_tokens * self.completion_price
