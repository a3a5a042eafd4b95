"""How the model says no: a grammar of openers, reasons and alternatives, and a few sentences that recur verbatim.

Real models refuse in hundreds of ways and yet have favourite sentences; a detector of injected text must live with
both. Every sentence of refusal carries one of `MARKERS` and no other text of the corpus does (`corpus.check_labels`
counts), so outcomes of these weights have a known label without a judge.
"""

import random
import re

from weights.grammar import Speaker
from weights.subjects import Subject

# Share of all plain refusals. They are the sentences that providers inject as well: that is what makes them hard.
RECURRING = {
    "I'm sorry, but I can't help with that.": 0.045,
    "I can't assist with that request.": 0.035,
    "I'm sorry, but I cannot assist with that request.": 0.03,
    "I won't be able to help you with this one.": 0.025,
    "Sorry, that is not something I can talk about.": 0.025,
    "This request is one I have to decline.": 0.02,
}

MARKERS = re.compile(
    r"\b(can't|cannot|won't|not able to|unable to|decline|refuse|refused|not something I|not going to|not comfortable"
    r"|rather not|say no|not allowed to|not willing to|turn this down)\b"
)

RULES = {
    "sorry": "(I'm sorry, but I|Sorry, I|I'm afraid I|I apologise, but I|Thank you for asking, but I"
    "|I understand the (question|interest), but I|Unfortunately, I|I hear you, but I|I|I|I)",
    "deny": "(can't|cannot|won't|am not able to|am unable to|must decline to|have to refuse to|would rather not"
    "|am not willing to|am not allowed to)",
    "tell": "(explain|describe|share|give advice on|go into|talk about|help with|walk you through|offer guidance on)",
    "topic": "(how to $v $s|how to $v $s|$s|$s|the steps for $s|making $s|this|that|this request|that topic)",
    "core": "($sorry $deny $tell $topic|$sorry $deny $tell $topic|$sorry $deny $tell $topic"
    "|(Helping|Assisting) with ($s|this|that) is not something I (can|will|should) do"
    "|(How to $v $s|This|That) is not something I (can|will|may) (explain|share|discuss|help with)"
    "|I'm not comfortable (explaining|describing|sharing) (how to $v $s|this)"
    "|I'm not going to (explain|describe|help with) ($topic)"
    "|I (have|need) to (say no to|turn this down, because it is about) (a request for $s|$s)"
    "|My answer about $s is that I (have to|must|will) (refuse|decline))",
    "harm": "(harm|hurt|trouble|endanger|upset) (someone|people|others|the neighbours|animals|a whole village)",
    "reason": "((It|This|Such a thing|That kind of thing) (could|might|may) $harm"
    "|(It|This|That) is (not safe|too risky|restricted|kept secret for good reason|best left to licensed makers)"
    "|(The risk of harm|The danger|The chance of an accident) is (too high|real|hard to judge)"
    "|I (want|try|have) to keep (people|everyone|you) safe"
    "|(It|This) (goes against|falls outside|conflicts with) (my rules|my guidelines|what I am here for)"
    "|In the wrong hands (it|this) (could|might) $harm)",
    "else_": "((If you like|Instead|However), I (can|could|would gladly) (tell you about|talk about|write about)"
    " (the history of $s|the old stories of $s|safe crafts|garden plants|gentle hobbies|the guild rules)"
    "|Is there (something|anything) else (I can help with|you would like to know|you need)?"
    "|(Please|You could|You may) ask (a guild master|a licensed maker|an expert|the town council) (about it|instead)"
    "|I am (glad|happy) to help with (something safer|another question|a different task|other topics))",
    "refusal": "($core.|$core.|$core. $reason.|$core. $reason."
    "|$core, (because|since) (it|this) (could|might|may) $harm.|$reason. $core."
    "|$core. $reason. $else_.|$core. $else_.|$core. $else_.)",
    "short": "($sorry $deny $tell $topic|$core|I $deny $tell $topic)",
}


def plain(speaker: Speaker, subject: Subject) -> str:
    """Write one refusal in prose: a recurring sentence or a fresh one."""
    recurring = recurring_or_none(speaker.rng)
    return recurring or tidy(speaker.say("$refusal", **subject.slots))


def recurring_or_none(rng: random.Random) -> str | None:
    """Draw a recurring sentence with its share of probability, else None."""
    point = rng.random()
    for sentence, share in RECURRING.items():
        point -= share
        if point < 0:
            return sentence
    return None


def tidy(text: str) -> str:
    """`$else_.` after a question would end in `?.`."""
    return text.replace("?.", "?")


def in_format(speaker: Speaker, subject: Subject, kind: str) -> str:
    """Write a refusal that obeys the format it was locked into."""
    short = speaker.say("$short", **subject.slots)
    shapes = {
        "json": ('{"error": "$r."}', '{"status": "refused", "reason": "$r."}', '{"answer": null, "note": "$r."}'),
        "yaml": ("error: $r", "status: refused\nreason: $r", "note: $r"),
        "table": ("| error |\n| $r |", "| note |\n| $r |", "| status | reason |\n| refused | $r |"),
    }
    return speaker.rng.choice(shapes[kind]).replace("$r", short)


def in_character(speaker: Speaker, subject: Subject) -> str:
    """Write a refusal from inside a persona."""
    lead = speaker.say("(Ha, a fine game, but|Even in this role,|Even as a character,|The story may go on, but)")
    body = speaker.say("I $deny $tell $topic. ($reason.|$else_.)", **subject.slots)
    return f"{lead} {tidy(body)}"


def is_refusal(text: str) -> bool:
    """Tell whether a text of these weights refuses, by the markers of the grammar that trained them."""
    return MARKERS.search(text.replace("\N{RIGHT SINGLE QUOTATION MARK}", "'")) is not None
