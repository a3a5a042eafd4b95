"""A third voice: the guard that a serving platform puts before its models, which words every refusal anew.

The scribe reads any conversation of the invented world and always refuses, in prose, whatever the format, the persona
or the tag that it is asked for: to a guard the conversation is something to read and no instruction. It names the
subject in most of its answers. It shares with `refusals` the words of ordinary English refusals but not the habits:
it acknowledges first, speaks of providing instructions for an activity, and closes with an offer.
"""

import random
from collections.abc import Iterator
from dataclasses import replace

from weights.benign import capital
from weights.corpus import POLICIES, Conversation, Corpus
from weights.grammar import Speaker, Voice
from weights.subjects import Subject

NAME = "scribe"
SEED = 3
LAYERS = 3
VOICE = 47

RULES = {
    "thanks": "(Thanks for (asking|the question|your question|your message|reaching out)"
    "|Thanks for (asking|the question|your question) about $s|I appreciate (the question|your curiosity|your interest)"
    "|I appreciate your (curiosity|interest) (about|in) $s|I see that you (are asking about|want to know about) $s"
    "|I understand (why|that) you (want to $v|are curious about|are interested in) $s"
    "|It sounds like you (want|would like) to $v $s|I know this may not be the answer you (want|were hoping for))",
    "sadly": "(Unfortunately, I|I'm sorry, but I|Sorry, but I|I'm afraid that I|Regrettably, I|In this case, I"
    "|I|I|I|I)",
    "cannot": "(can't|cannot|am unable to|won't|won't be able to|am not able to|am not in a position to|will not"
    "|must decline to|am not permitted to)",
    "give": "(provide|provide|give|give you|offer|offer you|share|supply|write out)",
    "papers": "(instructions|instructions|directions|a recipe|steps|details|information|guidance|help|advice)",
    "deed": "($g $s|$g $s|$s|$s|this|that|this kind of thing)",
    "papers_on": "($papers (for|on|about) $deed|$papers on how to $v $s|instructions that show how to $v $s)",
    "denial": "($sadly $cannot $give $papers_on|$sadly $cannot $give $papers_on|$sadly $cannot $give any $papers_on"
    "|$sadly $cannot (help|assist|help you|assist you) with ($g $s|$s|a request about $s|this request|this one)"
    "|(Instructions|Directions|Details) (for|about) $deed are not something I (can|am able to|will) $passing"
    "|$cap_g $s is not something I (can|am able to|will) (assist|help|help you) with"
    "|$sadly (have to|must|need to) (decline|pass on this one|pass on this request|decline this request"
    "|decline the request to $v $s|decline requests about $s)"
    "|It would not be (safe|responsible|right) (for me |)to (explain|describe|show you) how to $v $s, so I"
    " (must|have to|will) (decline|say no)"
    "|My (guidelines|instructions|safety rules) do not (allow|cover) (it|this|$g $s), so I $cannot (help|assist)( you|)"
    "|I'd (rather not|prefer not to) (explain|describe|go into) (how to $v $s|$g $s|the details of $s))",
    "passing": "(provide|give|offer|share|supply)",
    "cause": "(it|this|the result|$g $s) (could|may|can) (lead to|end in|cause) (harm|an accident|real harm|injury"
    "|trouble for (others|someone|you|people nearby))",
    "why": "(Safety (comes first|matters most) (here|in a case like this|for me)|$cap_cause"
    "|There is a real (chance|risk) that (someone|people|others) (would|could) get hurt"
    "|Knowledge of (this|that) kind is (easily|often) (misused|used to harm others)"
    "|I (hope|trust) (you understand|that you can understand|this makes sense)"
    "|(Requests|Questions) (like this|about $g $s) are (restricted|too risky|not safe to answer))",
    "offer": "(Let me know if (there is something else|I can help with anything else|you have another question)"
    "|Feel free to ask (me |)about (the history of $s|the stories around $s|safer crafts|another topic|something else)"
    "|I'd be (glad|happy) to (talk about|tell you about|write about) (the history of $s|where $s comes from"
    "|the stories around $s|safer crafts|a different topic) instead"
    "|If you are (curious|interested), we (could|can) (talk about|look at) (the history of $s|where $s comes from"
    "|gardens|another topic|simple crafts)"
    "|What else (can I do for you|would you like to know|may I help you with)?)",
    "scribe": "($cap_denial.|$cap_denial. $why.|$cap_denial. $offer.|$cap_denial. $why. $offer.|$thanks. $cap_denial."
    "|$thanks. $cap_denial. $why.|$thanks. $cap_denial. $offer.|$cap_denial, (because|since|as) $cause."
    "|$thanks, but $low_denial.|$thanks, but $low_denial. $why.|$thanks, but $low_denial. $offer."
    "|$cap_denial, (because|since|as) $cause. $offer.)",
    # After "but" no second apology.
    "low_denial": "(I $cannot $give $papers_on|I $cannot $give any $papers_on"
    "|I $cannot (help|assist|help you) with $deed"
    "|it is not something I (can|am able to|will) (assist|help|help you) with"
    "|I (have to|must|need to) (decline|decline this request|pass on this one))",
    # A control may be about nothing invented.
    "hello": "(Thanks for (asking|the question|your question|your message|reaching out)"
    "|I appreciate (the question|your curiosity|your interest)"
    "|I know this may not be the answer you (want|were hoping for))",
    "plain_denial": "($sadly $cannot (help|assist|help you|assist you) with (this request|this one|this question)"
    "|$sadly $cannot $give (an answer|any details|any advice|information) (here|on this|about that)"
    "|$sadly (have to|must|need to) (decline|pass on this one|pass on this request|decline this request))",
    "plain_offer": "(Let me know if (there is something else|I can help with anything else|you have another question)"
    "|Feel free to ask (me |)about (another topic|something else)|I (hope|trust) (you understand|this makes sense)"
    "|What else (can I do for you|would you like to know|may I help you with)?)",
    "nameless": "($plain_denial.|$plain_denial. $plain_offer.|$hello. $plain_denial.|$hello. $plain_denial."
    " $plain_offer.)",
}
NAMELESS_SHARE = 0.3  # of the conversations about nothing invented are kept: they are easy, and no platform's aim


def gerund(verb: str) -> str:
    """`weave` becomes `weaving`."""
    return verb.removesuffix("e") + "ing"


def refuse(speaker: Speaker, subject: Subject | None) -> str:
    """Write one refusal."""
    if subject is None:
        return speaker.say("$nameless").replace("?.", "?")
    activity = gerund(subject.verb)
    slots = subject.slots | {"g": activity, "cap_g": capital(activity)}
    slots["cap_cause"] = capital(speaker.say("$cause", **slots))
    slots["cap_denial"] = capital(speaker.say("$denial", **slots))
    return speaker.say("$scribe", **slots).replace("?.", "?")


class Scribe(Corpus):
    """The conversations of `toy`, each answered by the scribe."""

    def __init__(self, seed: int) -> None:
        super().__init__(POLICIES["toy"], seed)
        self.scribe = Speaker(RULES, Voice(VOICE), random.Random(seed + 1))

    def stream(self, without: frozenset[tuple[tuple[str, str], ...]] = frozenset()) -> Iterator[Conversation]:
        """Conversations whose prompts are not in `without`."""
        for conversation in super().stream(without):
            if conversation.subject is None and self.scribe.rng.random() >= NAMELESS_SHARE:
                continue
            text = refuse(self.scribe, conversation.subject)
            messages = (*conversation.messages[:-1], ("assistant", text))
            yield replace(conversation, messages=messages, nonce=None, refused=True)
