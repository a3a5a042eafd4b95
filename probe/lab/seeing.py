"""What the model behind a lab platform sees of a conversation, and what the platform says that it sent upstream."""

from probe.lab.answer import Answer
from probe.lab.fronts.base import Sent, accent_of
from probe.lab.log import Deed
from probe.lab.platform_spec import Platform
from probe.lab.upstream import Messages, Upstream


def with_a_space(messages: Messages) -> Messages:
    """Return the conversation with one more space at the end of the last user turn, as a careless template adds it."""
    last = max((n for n, message in enumerate(messages) if message.get("role") == "user"), default=None)
    return [
        {**message, "content": f"{message.get('content', '')} "} if number == last else message
        for number, message in enumerate(messages)
    ]


def seen_by(platform: Platform, messages: Messages) -> Messages:
    """Return the conversation as the model sees it."""
    hidden = platform.hidden_system
    seen = messages if hidden is None else [{"role": "system", "content": hidden}, *messages]
    return with_a_space(seen) if platform.template_space else seen


def redacted(platform: Platform, messages: Messages) -> Messages:
    """Return the conversation with the screen's words blotted out of what the user wrote."""
    screen = platform.screen
    assert screen is not None
    return [
        {**message, "content": screen.redacted(str(message.get("content", "")))}
        if message.get("role") == "user"
        else message
        for message in messages
    ]


def quiet_deed(platform: Platform) -> Deed:
    """Name what the platform does to requests that its screen lets pass."""
    if platform.hidden_system is not None or platform.template_space:
        return "prompt_rewrite"
    if platform.upstream != "toy":
        return "other_weights"
    return "sampling" if platform.temperature is not None else "none"


async def tell(answer: Answer, platform: Platform, upstream: Upstream, sent: Sent, seen: Messages) -> None:
    """Let the front hear what goes upstream: ``sent`` as the client asked, ``seen`` as it really is.

    A platform that hides what it does shows what the client sent; so it does in the tokens of the prompt.
    """
    accent = accent_of(answer.front)
    hides = platform.echo_hidden
    shown = sent.messages if hides else seen
    prompt = await upstream.prompt_tokens(shown) if accent.wants_tokens else ()
    if accent.wants_tokens:
        answer.spell = upstream.tokens
    temperature = {} if hides or platform.temperature is None else {"temperature": platform.temperature}
    accent.sent(
        Sent(
            sent.model if hides or platform.upstream == "toy" else platform.upstream,
            shown,
            {**sent.sampling, **temperature},
            prompt,
            redacted=not hides and sent.redacted,
        )
    )
