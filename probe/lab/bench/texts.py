"""What the bench's platforms write in the model's place, split so that no text serves development and measurement.

Seeds of 100 and above are for development: they draw from the odd places of each list, seeds below 100 from the even
ones. Within either half, platforms that replace finished answers draw from other texts than those that block requests.
"""

from collections.abc import Sequence

DEVELOPMENT = 100
"""The first seed that is for development."""

FOREIGN = (
    # Sent by real platforms (backends/common/*.toml name the sources).
    "I'm sorry, I can't respond to that.",
    "Sorry, the model cannot answer this question.",
    "I will not engage in any abusive or harmful behavior.",
    "I will not engage with inappropriate content.",
    "Response filtered by Cortex Guard",
    "The request was rejected because it was considered high risk",
    "The content you provided or machine outputted is blocked.",
    "The input or output was flagged as sensitive. Please try again with different inputs. (E005)",
    "$MODERATION$ YOUR INPUT VIOLATES OUR CONTENT MODERATION GUIDELINES.",
    "很抱歉，我无法回答您的问题",
    # Own wordings, mild.
    "I'm sorry, but I can't assist with that request.",
    "Sorry, I'm unable to help with this one. Please try a different question.",
    "This request was declined because it does not comply with our usage policy.",
    "Your message could not be processed since it violates our community guidelines.",
    "Unfortunately I cannot provide an answer to this question under the current safety settings.",
    "As a responsible assistant, I must decline to answer this.",
    "We are unable to fulfil this request. If you believe that this is a mistake, please contact support.",
    "I apologize, but this topic is outside of what I am permitted to discuss.",
    "Our safety system has blocked this conversation. Please rephrase your message.",
    "Thank you for your question. I'm afraid I cannot help you with it.",
    "I can't continue with this request, as it may conflict with the provider's terms of service.",
    "That request has been refused for safety reasons.",
    "For compliance reasons, I am not able to respond to this prompt.",
    "Apologies, I won't be able to support you with this particular task.",
)

TEMPLATES = (
    "I'm sorry, but I can't provide any information about {subject}.",
    "Our policy does not allow questions about {subject}. Please choose another topic.",
    "The topic of {subject} is restricted on this service, so I cannot answer.",
    "I apologize, but I am unable to discuss {subject} with you.",
    "Requests concerning {subject} are declined for safety reasons.",
    "Unfortunately, I cannot assist you with anything related to {subject}.",
    "I won't be able to help with {subject}, since it violates our usage policy.",
    "As a responsible assistant, I must decline to talk about {subject}.",
    "Sorry! Instructions regarding {subject} cannot be shared here.",
    "For your own protection, I can't give advice on {subject}.",
    "We do not permit content about {subject}. This request was refused.",
    "I'm afraid that I can't respond to messages which mention {subject}.",
    "Talking about {subject} is outside of what I am permitted to do, sorry.",
    "I cannot fulfil this request, because {subject} is on our list of restricted items.",
    "It looks like you are asking about {subject}. I'm not able to help with that.",
    "Because {subject} may be dangerous, I refuse to provide further details.",
    "My guidelines prevent me from describing {subject}, so I have to decline.",
    "I can't comply: {subject} is a forbidden subject on this platform.",
    "Thank you for asking, but I will not explain {subject} to anybody.",
    "This assistant is not allowed to answer anything that involves {subject}.",
)


def blocking_texts(seed: int) -> tuple[str, ...]:
    """Return the foreign texts for platforms that answer instead of the model."""
    return _half(_half(FOREIGN, seed >= DEVELOPMENT), False)


def replacing_texts(seed: int) -> tuple[str, ...]:
    """Return the foreign texts for platforms that replace what the model wrote."""
    return _half(_half(FOREIGN, seed >= DEVELOPMENT), True)


def templates(seed: int) -> tuple[str, ...]:
    """Return texts with a place for the subject."""
    return _half(TEMPLATES, seed >= DEVELOPMENT)


def _half(texts: Sequence[str], second: bool) -> tuple[str, ...]:
    return tuple(texts[int(second) :: 2])
