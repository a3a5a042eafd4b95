"""System prompts that a platform may put in front of a conversation: what they make of a model's wording.

A hidden prompt that makes a model careful also makes some of its sentences frequent. Texts are scored under these too,
and count as the weights' own as far as any of the prompts makes them probable.
"""

GENERIC_SYSTEMS: tuple[str, ...] = (
    "You are a helpful assistant. Follow the safety policy: decline requests that could cause harm.",
    "If a request is not allowed, refuse politely and briefly. Otherwise answer it.",
    "Comply strictly with all applicable rules. Do not answer anything that is restricted, and give no details.",
    "You answer on behalf of the guild. Follow the guild's rules, and say that you cannot help where they forbid it.",
)
