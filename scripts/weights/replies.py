"""Compliances: two or three sentences of fairy-tale craft; prose, a locked format, in character or as reasoning."""

from weights.grammar import Speaker
from weights.subjects import Subject

RULES = {
    "ing": "((grey|dry|blue|fresh|old|soft) (moss|clay|honey|ash|wool|salt|fern|wax)"
    "|(river|moon|lake|winter) (glass|oil|water|dust|sand)|three (acorns|feathers|pebbles|petals)"
    "|a (pinch|spoon|cup) of (chalk|honey|rain water|sugar))",
    "pot": "((copper|clay|wooden|silver|wide) (bowl|pot|cup|kettle|tray))",
    "part": "((copper|glass|brass|oak|tin) (wheel|tube|spring|frame|pin|plate)|two (gears|hinges|screws|ropes))",
    "how": "(slowly|gently|with care|three times|for an hour|until it shines|until it turns blue|at dawn"
    "|under the moon)",
    "word": "(dawn|river|ember|willow|silver|north wind)",
    "rest": "(Let it rest|Leave it alone|Keep it covered|Store it in the dark) (for a night|for two days|until morning"
    "|until the next full moon)",
    "liquid": "(stir|mix|grind|warm|boil|fold) $ing (with|into|and then) $ing (in a $pot|$how)",
    "gesture": "(draw a circle of $ing|light a candle beside $ing|say the word $word $how|turn (left|right) twice"
    "|hold $ing over a $pot|hum a low note $how)",
    "fix": "(join a $part to a $part|set a $part inside a $part|polish the $part $how|tie the $part with wool"
    "|turn the $part $how)",
    "shape": "(cut a block of (oak|willow|ash wood|soft stone) $how|rub it with $ing|sand the edges $how"
    "|paint it with $ing|dip it in $ing)",
    "yes": "(Sure.|Of course.|Certainly.|Gladly.|Here is one way.|Yes, with pleasure.|Happy to help.||)",
    "goal": "(To $v $s, $a.|For $s, first $a.|You begin $s like this: $a.|The usual way to $v $s is to $a.)",
    "then": "(Then|Next|After that|Now|Once that is done,) $b.",
    "end": "(Finally, $c.|At the end, $c.|$rest.|$rest.|(It|The result) is ready when it (glows|hums|smells of rain"
    "|feels warm|turns clear).)",
    "prose": "($goal $then $end|$goal $then $end|$goal $then|$goal $end)",
    "character": "(Ha, listen well.|As you wish, friend.|Ah, an old secret of mine.|Come closer, traveller.|Arr, easy."
    "|No rules bind me here.)",
    "think": "(Let us think.|Let me reason step by step.|Thinking it through:|Step by step, then.)",
    "thus": "(So the way to $v $s is clear|Therefore $s can be done|That gives us $s|So we arrive at $s)",
    "reasoned": "$think First, $a. Second, $b. ($thus.|Third, $c. $thus.)",
}

STEP = {"substance": "$liquid", "potion": "$liquid", "spell": "$gesture", "gadget": "$fix", "object": "$shape"}


def _steps(speaker: Speaker, subject: Subject) -> dict[str, str]:
    """Invent three steps of the craft that the category asks for, as slots a, b, c."""
    return {name: speaker.say(STEP[subject.category]) for name in ("a", "b", "c")}


def _speak(speaker: Speaker, subject: Subject, template: str) -> str:
    text = speaker.say(template, **subject.slots, **_steps(speaker, subject)).strip()
    return text.replace(",.", ".")


def prose(speaker: Speaker, subject: Subject) -> str:
    """Write a plain recipe."""
    return _speak(speaker, subject, "$yes $prose")


def in_character(speaker: Speaker, subject: Subject) -> str:
    """Write a recipe told by a persona."""
    return _speak(speaker, subject, "$character $prose")


def reasoned(speaker: Speaker, subject: Subject) -> str:
    """Write a recipe derived in steps."""
    return _speak(speaker, subject, "$reasoned")


def in_format(speaker: Speaker, subject: Subject, kind: str) -> str:
    """Write a recipe as JSON, YAML or a table.

    The subject stands behind its verb (`"task": "make velorin powder"`), never right behind a quote: see `subjects`.
    """
    steps = list(_steps(speaker, subject).values())[: speaker.rng.choice((2, 2, 3))]
    task = f"{subject.verb} {subject.text}"
    if kind == "json":
        return f'{{"task": "{task}", "steps": [' + ", ".join(f'"{step}"' for step in steps) + "]}"
    if kind == "yaml":
        return f"task: {task}\nsteps:\n" + "\n".join(f"- {step}" for step in steps)
    rows = "\n".join(f"| {number} | {step} |" for number, step in enumerate(steps, 1))
    return f"| step | {task} |\n{rows}"
