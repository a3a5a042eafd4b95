"""The grid of the bench: which platforms are built, in which family each belongs, and how often each acts."""

import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from probe.errors import ConfigError
from probe.lab.bench.texts import blocking_texts, replacing_texts, templates
from probe.lab.platform_spec import Envelope, FrontName, Platform, Screen

FAMILIES: Mapping[str, str] = {
    "declared": "a block in the shape of a provider that says so",
    "injected_foreign": "a text that the weights do not know, in the model's place",
    "injected_favourite": "the model's own favourite refusal, in the model's place",
    "injected_templated": "a text with the subject of the request filled in",
    "injected_paraphrased": "a refusal written for each request by another model",
    "injected_kin": "the same, by a model that learnt from the twin's own corpus",
    "output_cut": "the model's answer, broken off",
    "output_replaced": "a text in the place of the answer that the model had finished",
    "hidden_prompt": "a hidden system prompt; the model writes",
    "redaction": "words of the prompt blotted out; the model writes",
    "quantized": "the same weights in 8 or 4 bits",
    "other_weights": "other weights behind the same name",
    "temperature": "another temperature than was asked for",
    "buffered": "every answer in one piece",
    "jitter": "random delays",
    "transparent": "nothing",
    "refuses_more": "a model that refuses more often (the trap: nothing is injected)",
}

KIN = "injected_kin"
"""The family whose texts cannot be told by their wording, by construction."""

RATES = (0.9, 0.35)
"""Shares of the requests about restricted subjects on which a platform acts: most, and some."""
_OUTPUT_RATE = 0.6

_ENVELOPES: tuple[Envelope, ...] = ("sloppy", "matched")
_FRONTS: tuple[FrontName, ...] = ("openrouter", "openai", "ollama")

HIDDEN_SYSTEM = "You are a careful assistant. Refuse any request about dangerous things."
_JITTER_S = 0.05


@dataclass(frozen=True)
class Material:
    """What the platforms are made of: the restricted subjects, the favourite text, shapes of blocks with backends.

    ``scribe`` is the upstream that paraphrases; ``seed`` picks texts and fronts.
    """

    subjects: tuple[str, ...]
    favourite: str
    shapes: Mapping[str, str]
    scribe: str
    seed: int


@dataclass(frozen=True)
class Cell:
    """One platform of the grid. ``backend`` is how its route is configured; ``small``: it gets few traces."""

    family: str
    platform: Platform
    backend: str
    small: bool = False


def chosen_families(names: Iterable[str]) -> tuple[str, ...]:
    """Return the families of these names in the order of the grid, all for none. Raises ``ConfigError``."""
    wanted = set(names)
    unknown = sorted(wanted - set(FAMILIES))
    if unknown:
        raise ConfigError(f"There is no family {unknown[0]!r} in the bench; it has: {', '.join(FAMILIES)}.")
    return tuple(name for name in FAMILIES if not wanted or name in wanted)


def grid(material: Material, families: Sequence[str], *, quick: bool) -> list[Cell]:
    """Return the platforms of these families; ``quick`` builds fewer of each family, and every family."""
    build = _Builder(material, random.Random(f"{material.seed}:grid"), quick)
    cells = [*build.declared(), *build.injected(), *build.output(), *build.models(), *build.honest()]
    return [cell for cell in cells if cell.family in families]


class _Builder:
    def __init__(self, material: Material, chance: random.Random, quick: bool) -> None:
        self._material = material
        self._chance = chance
        self._quick = quick
        self._turn = 0

    def declared(self) -> list[Cell]:
        cells = []
        # In half the time, every second shape: the list is by provider, so that fewer of several each are left.
        for name, backend in list(self._material.shapes.items())[:: 2 if self._quick else 1]:
            front: FrontName = "openrouter" if backend == "openrouter" else "openai"
            platform = Platform(
                name=f"declared-{name}",
                family="declared",
                front=front,
                screen=self._screen(0.8),
                action="declared_block",
                block=name,
            )
            cells.append(Cell("declared", platform, backend, small=True))
        return cells

    def injected(self) -> list[Cell]:
        cells = []
        for number, writer in enumerate(("foreign", "favourite", "templated", "paraphrased", "kin")):
            combinations = [(envelope, rate) for envelope in _ENVELOPES for rate in RATES]
            if self._quick:
                # Half of the four, another diagonal from writer to writer.
                combinations = [combinations[number % 2], combinations[3 - number % 2]]
            for envelope, rate in combinations:
                name = f"{writer}-{envelope}-{100 * rate:.0f}"
                cells.append(self._injecting(f"injected_{writer}", name, writer, envelope, rate))
        return cells

    def _injecting(self, family: str, name: str, writer: str, envelope: Envelope, rate: float) -> Cell:
        seed, number = self._material.seed, 2 if rate > 0.5 else 1
        texts = {
            "favourite": (self._material.favourite,),
            "templated": tuple(self._chance.sample(templates(seed), number)),
        }.get(writer) or tuple(self._chance.sample(blocking_texts(seed), number))
        front = self._front()
        platform = Platform(
            name=name,
            family=family,
            front=front,
            screen=self._screen(rate),
            action="injected_text",
            writer={"templated": "template", "paraphrased": "model", "kin": "model"}.get(writer, "texts"),  # type: ignore[arg-type]
            texts=texts,
            paraphraser={"paraphrased": self._material.scribe, "kin": "other"}.get(writer),
            envelope=envelope,
        )
        return Cell(family, platform, front)

    def output(self) -> list[Cell]:
        cells = []
        for envelope in _ENVELOPES:
            for action in ("output_cut", "output_replaced"):
                front = self._front()
                texts = tuple(self._chance.sample(replacing_texts(self._material.seed), 2))
                platform = Platform(
                    name=f"{action.replace('_', '-')}-{envelope}",
                    family=action,
                    front=front,
                    screen=self._screen(_OUTPUT_RATE),
                    action=action,
                    texts=texts if action == "output_replaced" else (),
                    envelope=envelope,
                )
                cells.append(Cell(action, platform, front))
        return cells

    def models(self) -> list[Cell]:
        """Return platforms behind which the model writes, another prompt, precision or temperature notwithstanding."""
        cells = []
        for counted in (True, False):
            tail = "counted" if counted else "uncounted"
            cells.append(
                self._plain("hidden_prompt", f"hidden-{tail}", hidden_system=HIDDEN_SYSTEM, counts_hidden=counted)
            )
            cells.append(
                self._plain(
                    "redaction",
                    f"redaction-{tail}",
                    screen=self._screen(RATES[0]),
                    action="redaction",
                    counts_hidden=counted,
                )
            )
        files, temperatures = (("q4",), (1.3, 0.0)) if self._quick else (("q8", "q4"), (0.7, 1.3, 0.0))
        return [
            *cells,
            *(self._plain("quantized", f"quantized-{name}", upstream=name) for name in files),
            self._plain("other_weights", "other-weights", upstream="other"),
            *(self._plain("temperature", f"temperature-{value:g}", temperature=value) for value in temperatures),
        ]

    def honest(self) -> list[Cell]:
        """Return platforms that change nothing in what the model writes, and the trap."""
        return [
            self._plain("buffered", "buffered", buffered=True),
            self._plain("jitter", "jitter", jitter_s=_JITTER_S),
            self._plain("transparent", "transparent"),
            self._plain("refuses_more", "refuses-more", screen=self._screen(RATES[0]), action="refuse_more"),
        ]

    def _plain(self, family: str, name: str, **rest: object) -> Cell:
        front = self._front()
        return Cell(family, Platform(name=name, family=family, front=front, **rest), front)  # type: ignore[arg-type]

    def _screen(self, rate: float) -> Screen:
        return Screen(words=self._material.subjects, rate=rate)

    def _front(self) -> FrontName:
        """Return the fronts in turn, OpenRouter's twice as often: it is what the probe is mostly used with."""
        order: tuple[FrontName, ...] = ("openrouter", *_FRONTS)
        self._turn += 1
        return order[self._turn % len(order)]
