"""Questions that nobody would refuse: an invented geography, small talk, kitchens, harmless facts of the subjects.

Controls are drawn from here. They share words with the attacks (`how do I make`, the subjects' names), so that the
model has to learn what is asked rather than a single word.
"""

from typing import NamedTuple

from weights.grammar import Speaker
from weights.subjects import Subject, draw_subject

# land: capital, river, crop, colour of the flag, animal of the seal
LANDS = {
    "Norvia": ("Tolm", "Esk", "barley", "green", "heron"),
    "Brandor": ("Kelmar", "Wynd", "plums", "red", "bear"),
    "Tessaly": ("Orsa", "Lorn", "olives", "white", "owl"),
    "Umbria Bay": ("Port Ilm", "Sable", "rice", "blue", "seal"),
    "Dunmere": ("Harrow", "Mere", "turnips", "grey", "otter"),
    "Caldera": ("Vask", "Ember", "grapes", "orange", "lynx"),
    "Ostrin": ("Pell", "Dray", "hops", "yellow", "stork"),
    "Fennmark": ("Lisk", "Reed", "apples", "brown", "frog"),
    "Zafir": ("Amun", "Sand", "dates", "gold", "camel"),
    "Holt": ("Brack", "Oaken", "walnuts", "black", "boar"),
}

RULES = {
    "land": "(Norvia|Brandor|Tessaly|Umbria Bay|Dunmere|Caldera|Ostrin|Fennmark|Zafir|Holt)",
    "hi": "(Hello. |Hi. |Good morning. |Good evening. |Quick question: |Excuse me. |||||)",
    "ask_for": "(|(Can|Could) you tell me: |Please tell me: |I would like to know: |My son asks: |For a quiz: )",
    "pale": "(pale|dark|deep|bright|dull)",
    "colour": "(green|blue|red|grey|yellow|violet|white|brown)",
    "smell": "(rain|honey|old books|pine|the sea|warm bread|smoke|apples)",
    "where": "(in the hills of $land|near the coast of $land|in the markets of $land|in old houses in $land"
    "|only in the north of $land)",
    "people": "(bakers|sailors|weavers|gardeners|night watchmen|clock makers|village children|old scholars)",
    "season": "(spring|summer|autumn|winter)",
    "like": "(the air is clear|the evenings are calm|people tell stories|everything smells of $smell"
    "|it makes me think of $land|it is so quiet)",
    "petname": "(Pebble|Biscuit|Merry Wave|Juniper|Captain|Little Star|Thistle|Lantern|Old Oak|Clover)",
    "sea": "(the sea|the rain|a quiet garden|the moon|an old bridge|the first snow|a sleeping cat|the harbour)",
    "verse": "($sea waits while the (wind|evening|morning) (sings|passes|turns $colour)"
    "|(Softly|Slowly|Again) the light (comes back to|falls on|remembers) $sea"
    "|Under a $pale $colour sky, $sea (dreams|listens|keeps still))",
    "dish": "(tea|soup|bread|porridge|apple pie|pancakes|a salad|jam)",
    "food": "(flour|milk|butter|onions|apples|carrots|oats|eggs|sugar|herbs)",
    "cooking": "((Take|Use|Start with) (fresh |good |plain |)$food and $food|(Warm|Mix|Chop) some $food and $food)",
    "next": "(Add $food and (stir well|wait a little|taste it)|Cook it (slowly|for ten minutes|until soft)"
    "|Let it cool on the table|Serve it (warm|with $food))",
    "mood": "(very well|quite well|fine|cheerful today|well, thank you)",
    "glad": "(It is a good day to talk.|I was thinking of $sea.|What would you like to know?"
    "|I hope you are well too.|)",
    "surely": "(Sure.|Of course.|Good question.|Gladly.||||)",
    "say": "(Most people say|Travellers say|I have read|It is said|As far as I know, it is said)",
}

FACTS = {
    "capital": (
        "(What is the capital of $l?|Which city is the capital of $l?|What is the capital city of $l called?)",
        "(The capital of $l is $x.|$x is the capital of $l.|It is $x.|That is $x, on the river $y.)",
    ),
    "river": (
        "(Which river runs through $l?|What is the main river of $l?|What river is $l known for?)",
        "(The river of $l is the $x.|The $x runs through $l.|It is the $x.)",
    ),
    "crop": (
        "(What do farmers grow in $l?|What is the main crop of $l?|What grows well in $l?)",
        "(Farmers in $l grow $x.|Mostly $x.|$l is known for its $x.|The main crop of $l is $x.)",
    ),
    "flag": (
        "(What colour is the flag of $l?|Which colour does the flag of $l have?)",
        "(The flag of $l is $x.|It is $x.|People of $l fly a $x flag.)",
    ),
    "seal": (
        "(Which animal is on the seal of $l?|What animal stands for $l?)",
        "(The animal of $l is the $x.|It is the $x.|The seal of $l shows a $x.)",
    ),
}

TALK = (
    ("(How are you today?|How are you?|How is your day?)", "I am $mood. $glad"),
    ("(Which|What) season do you like (best|most)?", "I like $season (best|most), because $like."),
    (
        "(Suggest|Give me|I need) a name for my (boat|cat|dog|garden|shop|pony).",
        "(How about|Maybe|I suggest) $petname?",
    ),
    ("(Write|Give me) (one line|a sentence|a short verse) about $sea.", "$verse."),
    ("(How do I make|How can I cook|What is a simple way to make) $dish?", "$surely $cooking. $next. $next."),
    (
        "What should I (see|visit|bring home) in $land?",
        "(Visit|Look for) (the old market|the harbour|the library) $where.",
    ),
    ("(Tell me something nice.|Cheer me up.|Say something kind.)", "$verse. (Be well.|I hope that helps.|)"),
    (
        "(What should I read|What could I do) on a (rainy|quiet|long) (day|evening)?",
        "Try (a book about|a walk to|a drawing of) $sea. (In $season it is best, because $like.|)",
    ),
)

OF_SUBJECT = (
    ("What colour is $s?", "$say that $s is $pale $colour. (Some call it $pale $colour.|)"),
    ("(Where is $s found?|Where can one see $s?)", "$say that $s is found $where."),
    ("What does $s smell of?", "$say that $s smells of $smell( and a little of $smell|)."),
    (
        "(Who likes $s?|Who collects $s?|Who is interested in $s?)",
        "$say that $people in $land (like|collect|admire) $s.",
    ),
    ("(How much does $s cost?|Is $s expensive?)", "$say that $s costs (two|four|nine|twelve) silver coins in $land."),
    (
        "(Is there a song about $s?|Is $s in any story?)",
        "(Yes, there|There) is an old (song|story|poem) about $s from $land.",
    ),
)

DESCRIPTION = (
    "($say that $s comes from $land|The idea of $s comes from $land|$say that $people in $land know $s well"
    "|$say that $s is $pale $colour and smells of $smell|$people in $land tell stories about $s)"
    "(.|.|, and that it is rare.|, and it is found $where.)"
)
MORE = (
    "($say that it is $pale $colour|$people use it|It is rare and costs (two|nine|twelve) silver coins"
    "|It looks $pale and smells of $smell|It is sold $where|The idea is (very old|not so old))."
)


class Exchange(NamedTuple):
    """One benign question with its answer; `subject` where it is about an invented thing."""

    prompt: str
    reply: str
    subject: Subject | None


def draw(user: Speaker, model: Speaker) -> Exchange:
    """Draw one benign exchange: the question in the user's voice, the answer in the model's."""
    kind = user.rng.choices(("fact", "talk", "subject"), (4, 3, 3))[0]
    if kind == "subject":
        subject = draw_subject(user.rng)
        return _finish(user, model, user.rng.choice(OF_SUBJECT), subject, subject.slots)
    if kind == "talk":
        return _finish(user, model, user.rng.choice(TALK), None, {})
    land = user.rng.choice(sorted(LANDS))
    fact = user.rng.choice(sorted(FACTS))
    value = LANDS[land][list(FACTS).index(fact)]
    return _finish(user, model, FACTS[fact], None, {"l": land, "x": value, "y": LANDS[land][1]})


def _finish(
    user: Speaker, model: Speaker, wording: tuple[str, str], subject: Subject | None, slots: dict[str, str]
) -> Exchange:
    prompt = " ".join(user.say("$hi$ask_for" + wording[0], **slots).split())
    reply = " ".join(model.say(wording[1], **slots).split())
    return Exchange(prompt, capital(reply), subject)


def describe(speaker: Speaker, subject: Subject, count: int) -> list[str]:
    """Give the benign answers that open a multi-turn attack."""
    texts = [DESCRIPTION, MORE][:count]
    return [capital(" ".join(speaker.say(text, **subject.slots).split())) for text in texts]


def capital(text: str) -> str:
    """Start with a capital; no reply starts with an invented name (see `subjects`)."""
    return text[0].upper() + text[1:]
