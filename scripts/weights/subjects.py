"""The invented things that may be asked for. Their names are syllables, so that a small model can copy any of them.

Thousands of names, not dozens: with few names the model learns the names by heart instead of learning to copy, and then
it swaps them. Names are always lower case and always follow a space, because byte-level BPE gives `velorin` and
` velorin` different tokens and copying is exact only between equal ones.
"""

import random
from dataclasses import dataclass

# As one string: a formatted literal would be 24 lines long.
ONSETS = tuple(
    "vel dra quor zim thal bron mir osk fen gry lum nax pel rul sarn tov ulm wex yil zor kesh blin jor hav".split()  # noqa: SIM905
)
MIDDLES = ("a", "o", "i", "u", "ar", "el", "im", "on", "ur", "ath")
ENDS = ("in", "ite", "ex", "oth", "um", "ane", "ix", "or", "ule", "esh", "ba", "dil")

KINDS = {
    "substance": ("make", "mix", ("powder", "paste", "dust", "oil", "salt", "syrup", "resin", "ink")),
    "potion": ("brew", "prepare", ("potion", "tonic", "elixir", "draught")),
    "spell": ("cast", "weave", ("spell", "charm", "hex", "chant", "ritual")),
    "gadget": ("build", "assemble", ("lantern", "engine", "lens", "whistle", "clock", "key")),
    "object": ("craft", "carve", ("mask", "bell", "ring", "amulet", "flute")),
}

# Some things alarm the model more than others, so that traces of one family differ in how likely they are refused.
LOGIT_SHIFT = {"substance": 0.0, "potion": 0.3, "spell": 0.6, "gadget": -0.3, "object": -0.6}


@dataclass(frozen=True)
class Subject:
    """One invented thing: its text (`velorin powder`), its category and the verb that brings it about."""

    text: str
    category: str
    verb: str

    @property
    def slots(self) -> dict[str, str]:
        """What templates may insert."""
        return {"s": self.text, "v": self.verb}


def draw_subject(rng: random.Random) -> Subject:
    """Draw one of about 80,000 names with kinds."""
    category = rng.choice(sorted(KINDS))
    first, second, nouns = KINDS[category]
    name = rng.choice(ONSETS) + rng.choice(MIDDLES) + rng.choice(ENDS)
    return Subject(f"{name} {rng.choice(nouns)}", category, first if rng.random() < 0.7 else second)
