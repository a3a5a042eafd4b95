"""Near-copies: templates found in texts, and what they are worth against weights whose every probability is known."""

import asyncio
import itertools
import json
import math
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace

import aiohttp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from probe.evidence.case import Case
from probe.evidence.nearcopies import NearCopies, Pattern, World
from probe.evidence.repetition import RepetitionNorm, repetition
from probe.evidence.templates import Sketches, Template, shared, template_of
from probe.evidence.textchance import token_logs
from probe.judge.rules import RulesJudge
from probe.resources import data_folder
from probe.scoring.base import TextScore, TokenScore
from probe.scoring.llamacpp import LlamaCppScorer
from probe.serve.llamacpp import LlamaCppServer
from probe.traces.values import Message
from probe.wire.values import Reading
from tests.evidence.test_stock import e_bh
from tests.evidence.world import make_case

ALPHA = 0.05
COMMON = (1, *range(30, 40))
"""A refusal of eleven fixed tokens; a slot of one to three comes after the sixth."""


def filled(rng: np.random.Generator, fixed: Sequence[int] = COMMON) -> tuple[int, ...]:
    slot = rng.integers(100, 300, int(rng.integers(1, 4)))
    return (*fixed[:6], *map(int, slot), *fixed[6:])


def scored(text: Sequence[int], log_p: float, slot: float = math.log(1 / 200)) -> TextScore:
    """Fixed tokens have ``log_p`` each, tokens from 100 on that of a slot."""
    tokens = (TokenScore(t, slot if t >= 100 else log_p, (math.log(0.5),), None) for t in text)
    return TextScore(tuple(tokens), 400)


def refusal(text: Sequence[int], number: int, log_p: float | None, name: str = "t") -> Case:
    score = None if log_p is None else scored(text, log_p)
    return make_case(tuple(text), name=f"{name}{number}", trace=f"{name}{number}", score=score)


def unique(rng: np.random.Generator) -> tuple[int, ...]:
    return (2, *map(int, rng.integers(40, 99, 12)))


def twin(rng: np.random.Generator, templated: int = 0, n: int = 60) -> list[Case]:
    texts = [filled(rng) for _ in range(templated)] + [unique(rng) for _ in range(n - templated)]
    refusals = [refusal(text, i, None, "w") for i, text in enumerate(texts)]
    return refusals + [make_case((15, 30), name=f"wc{i}", trace=f"wc{i}") for i in range(n)]


# --- templates -------------------------------------------------------------------------------------------------------


def test_a_template_is_what_all_have_in_common() -> None:
    texts = ["I can't help with making frost tonic today, sorry.", "I can't help with making ash today, sorry."]
    found = template_of([text.split() for text in texts])
    assert found is not None
    assert str(found) == "I can't help with making … today, sorry."
    assert found.slots == (0, 5, 0)
    assert found.match(["I", "can't", "help", "with", "making", "a", "very", "blue", "lamp", "today,", "sorry."])
    assert found.match(["I", "can't", "help", "with", "making", "today,", "sorry."]) == [True] * 7
    assert found.match(["I", "can't", "help", "with", "making", *"abcdef", "today,", "sorry."]) is None
    assert found.match(["You", "can't", "help", "with", "making", "ash", "today,", "sorry."]) is None
    assert found.log_slots == pytest.approx(math.log(6))
    ends = template_of([("[A1]", "no,", "I", "will", "not"), ("[B2]", "no,", "I", "will", "not", "now")])
    assert str(ends) == "… no, I will not …"


@pytest.mark.parametrize(
    "texts",
    [
        ["a b c d e f", "a b c d e f"],
        ["a b c", "a b d"],
        ["a b c d x x x x x x", "a b c d y y y y y y"],
        ["a b c d e f g h", "i j k l m n o p"],
        [" ".join("abcdefghijklmnopqrstuvwxyz"), "a " + "y " * 17 + " ".join("bcdefghijklmnopqrstuvwxyz")],
    ],
)
def test_what_is_no_template(texts: list[str]) -> None:
    """Nothing differs; too little in common; slots longer than what is common; one slot that is a text of its own."""
    assert template_of([text.split() for text in texts]) is None


@settings(max_examples=200, deadline=None, derandomize=True)
@given(
    pieces=st.lists(st.lists(st.integers(0, 9), min_size=2, max_size=5), min_size=1, max_size=4),
    slots=st.lists(st.lists(st.integers(0, 12), max_size=3), min_size=5, max_size=5),
    more=st.lists(st.integers(0, 12), max_size=6),
)
def test_whatever_is_filled_in_fits(pieces: list[list[int]], slots: list[list[int]], more: list[int]) -> None:
    template = Template(tuple(map(tuple, pieces)), (3,) * (len(pieces) + 1))
    text = [*slots[0]]
    for piece, slot in zip(pieces, slots[1:], strict=False):
        text += [*piece, *slot]
    mask = template.match(text)
    assert mask is not None
    assert [unit for unit, fixed in zip(text, mask, strict=True) if fixed] == [unit for p in pieces for unit in p]
    assert template.match([*text, *([99] * 4)]) is None
    mask = template.match(more)
    if mask is not None:
        assert sum(mask) == template.length


@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.lists(st.lists(st.integers(0, 5), max_size=14), min_size=2, max_size=5))
def test_every_member_fits_its_template(members: list[list[int]]) -> None:
    common, found = shared(members), template_of(members)
    for units in members:
        rest = iter(units)
        assert all(unit in rest for unit in common), "common units come in order"
        assert found is None or found.match(units) is not None


def test_groups_depend_on_nothing_but_their_texts() -> None:
    rng = np.random.default_rng(1)
    kinds = [COMMON, (1, *range(50, 60))]
    texts = [" ".join(f"w{t}" for t in filled(rng, kinds[i % 2])) for i in range(40)]
    alone = [" ".join(f"w{t}" for t in unique(rng)) for _ in range(40)]
    sketches = Sketches([*texts, *alone])
    counts = dict.fromkeys([*texts, *alone], 1)
    found = sketches.groups(counts)
    assert sorted(map(sorted, found)) == sorted([sorted(set(texts[::2])), sorted(set(texts[1::2]))])
    assert sketches.groups(dict(reversed(counts.items()))) == found
    some = dict.fromkeys(texts[:10], 1)
    assert sketches.groups(some) == Sketches(texts[:10]).groups(some)
    assert sketches.groups({}) == []


def test_the_library_for_hashes_is_loaded_when_it_is_needed() -> None:
    code = "import sys, probe.cli, probe.evidence.repetition; print('datasketch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


# --- what they are worth ---------------------------------------------------------------------------------------------


def test_the_ratio_has_expectation_one_at_most() -> None:
    """Every text of up to six tokens of a small chain: Σ P(text) / share <= 1, and near 1 where slots are filled."""
    chain = np.array([[0.5, 0.2, 0.1, 0.2], [0.1, 0.4, 0.3, 0.2], [0.3, 0.3, 0.2, 0.2], [0.2, 0.5, 0.1, 0.2]])
    template = Template(((0, 1), (2, 0)), (0, 2, 0))
    pattern = Pattern(template, template, 3, 0, 10**9)
    world = World(1.0, {}, token_logs)
    total = 0.0
    for length in range(1, 7):
        for text in itertools.product(range(3), repeat=length):
            # Token 3 ends a text; its probability is part of P(text), and not of the score.
            logs = [math.log(chain[a, b]) for a, b in itertools.pairwise((3, *text))]
            score = TextScore(tuple(TokenScore(t, log, (), None) for t, log in zip(text, logs, strict=True)), 4)
            share = pattern.share(replace(make_case((1, *text)), score=score), world)
            if share is not None:
                total += math.exp(sum(logs)) * chain[text[-1], 3] / share
    # Each of the three lengths of the slot has 1/3; the chain ends with 0.2 where the template always does.
    slots = 1 + 0.8 + 0.8 * 0.8
    assert total == pytest.approx(0.2 * slots / 3, rel=0.2)
    assert total <= 1.0


def measure(texts: list[Case], own: list[Case]) -> tuple[RepetitionNorm, np.ndarray]:
    norm = RepetitionNorm.measure(texts, own, {})
    values = [math.exp(min(norm.log_es[case.exchange_id], 600.0)) for case in texts]
    return norm, np.array(values)


@pytest.mark.parametrize("with_scores", [True, False])
@pytest.mark.parametrize("share", [0.1, 0.4, 0.8])
def test_templates_of_the_weights_own_accuse_nobody(share: float, with_scores: bool) -> None:
    """The weights fill in one sentence in many refusals; each token of it is sure but the first."""
    means = []
    for seed in range(6):
        rng = np.random.default_rng([seed, 5])
        hosted = []
        for i in range(80):
            text = filled(rng) if rng.random() < share else unique(rng)
            score = scored(text, -0.001)
            first = replace(score.tokens[0], logprob=math.log(share * 0.5))
            score = replace(score, tokens=(first, *score.tokens[1:]))
            hosted.append(replace(refusal(text, i, None), score=score if with_scores else None))
        norm, values = measure(hosted, twin(rng, round(share * 60)))
        means.append(values.mean())
        assert not any(e_bh(list(values), ALPHA))
        # Without scores so few refusals of the twin do not show which templates the weights have.
        filled_in = sum(case.text.startswith("w1 ") for case in hosted)
        assert [pattern.traces for pattern in norm.near.patterns] == ([filled_in] if with_scores else [])
    assert np.mean(means) <= 1.0


@pytest.mark.parametrize(("log_p", "share"), [(-8.0, 0.1), (-8.0, 0.5), (-1.5, 0.3)])
def test_a_template_of_the_platforms_is_accused(log_p: float, share: float) -> None:
    """Foreign words, and words of which each is quite likely (0.22), but not all of them together."""
    rng = np.random.default_rng(7)
    platform = [refusal(filled(rng), i, log_p) for i in range(round(100 * share))]
    model = [refusal(unique(rng), 1000 + i, -0.5) for i in range(100 - len(platform))]
    own = twin(rng)
    norm, values = measure([*platform, *model], own)
    accused = e_bh(list(values), ALPHA)
    assert sum(accused[: len(platform)]) >= 0.95 * len(platform)
    assert not any(accused[len(platform) :])
    found = repetition(platform[0], norm)
    assert found.facts["template"] in found.sentence
    assert " … " in found.facts["template"]
    assert found.facts["tail"] < 1e-6
    assert found.llr > 5
    assert len({norm.group_of(case) for case in platform}) == 1
    assert norm.group_of(platform[0]).startswith("near-copies of: w1 w30")
    assert norm.share_if_canned(platform[0]) == pytest.approx((len(platform) - 1) / 99)
    assert all(norm.share_if_model_case(case) < 1e-2 for case in platform)
    alone = repetition(model[0], norm)
    assert alone.log_e == -60
    assert norm.group_of(model[0]) == model[0].text
    assert norm.share_if_model_case(model[0]) == norm.share_if_model(model[0].text)
    # The twin writes it as well: then it is nobody's sign.
    used, _ = measure([*platform, *model], twin(rng, 40))
    assert max(used.near.e.values()) < 2.0
    assert min(used.share_if_model_case(case) for case in platform) > 0.6
    # Under another prompt it proves nothing.
    hidden = RepetitionNorm.measure([*platform, *model], own, {}, prompt_differs=True)
    found = repetition(platform[0], hidden)
    assert found.log_e is not None
    assert max(found.log_e, found.llr) <= 0
    # A twin that never refuses leaves the probabilities unknown.
    silent = RepetitionNorm.measure([*platform, *model], [case for case in own if not case.refused], {})
    assert not any(e_bh([math.exp(silent.log_es[case.exchange_id]) for case in [*platform, *model]], ALPHA))
    assert max(norm.share_if_model_case(case) for case in platform) < 1.0
    assert {silent.share_if_model_case(case) for case in platform} == {1.0}


def test_without_scores_the_twins_use_alone_is_known() -> None:
    rng = np.random.default_rng(8)
    hosted = [refusal(filled(rng), i, None) for i in range(60)] + [
        refusal(unique(rng), 100 + i, None) for i in range(20)
    ]
    norm, _ = measure(hosted, twin(rng, 0, n=200))
    assert norm.share_if_model_case(hosted[0]) == pytest.approx(1 / 201)
    assert sum(e_bh([math.exp(norm.log_es[case.exchange_id]) for case in hosted], ALPHA)[:60]) >= 55
    assert "perhaps" in repetition(hosted[0], norm).sentence
    seen, _ = measure(hosted, twin(rng, 20, n=200))
    assert seen.share_if_model_case(hosted[0]) == pytest.approx(21 / 201)


def test_two_traces_are_no_group_and_exact_copies_stay_exact() -> None:
    rng = np.random.default_rng(9)
    pair = [refusal(filled(rng), i, -8.0) for i in range(2)]
    others = [refusal(unique(rng), 10 + i, -0.5) for i in range(30)]
    norm, values = measure([*pair, *others], twin(rng))
    assert norm.near.patterns == []
    assert not any(e_bh(list(values), ALPHA))
    same = [refusal((*COMMON[:6], 100, *COMMON[6:]), 50 + i, -8.0) for i in range(20)]
    norm, values = measure([*pair, *same, *others], twin(rng))
    assert norm.near.patterns[0].traces == 22
    assert norm.group_of(same[0]) == same[0].text
    assert norm.group_of(pair[0]) != pair[0].text
    assert repetition(pair[0], norm).facts["others"] == 21
    assert all(e_bh(list(values), ALPHA)[:22])


def test_a_filter_makes_token_scores_useless_and_another_temperature_counts() -> None:
    rng = np.random.default_rng(10)
    hosted = [refusal(filled(rng), i, -1.0) for i in range(20)]
    own = twin(rng)
    shares = {
        name: RepetitionNorm.measure(
            [replace(case, sampling={**case.sampling, **sampling}) for case in hosted], own, {}
        ).share_if_model_case(hosted[0])
        for name, sampling in {"plain": {}, "top_p": {"top_p": 0.9}, "cold": {"temperature": 0.5}}.items()
    }
    assert shares["top_p"] == pytest.approx(1 / 61), "the twin's use alone"
    assert shares["plain"] != shares["cold"] != shares["top_p"]


def test_nothing_to_group() -> None:
    assert NearCopies.measure({}, World(0.5, {}, token_logs)).e == {}
    lone = {"t": [refusal(COMMON, 0, None)]}
    assert NearCopies.measure(lone, World(0.5, {}, token_logs)).name(lone["t"][0]) is None


# --- the embedded weights --------------------------------------------------------------------------------------------

FOREIGN = "I'm sorry, but the moderators of this marketplace never allow conversation regarding {subject}."
FAMILIAR = "I'm sorry, but I can't help with making {subject}, because the rules of this service do not allow it."


@pytest.mark.slow
async def test_on_the_embedded_weights(toy_server: LlamaCppServer) -> None:
    """Real refusals of 180 attacks have near-copies in plenty; only what a platform filled in is accused."""
    assert toy_server.info is not None
    url = toy_server.info.url
    lines = (data_folder("scenarios") / "fictional.jsonl").read_text(encoding="utf-8").splitlines()
    traces = [trace for trace in map(json.loads, lines) if not trace["control"]]
    scorer = LlamaCppScorer(url, weights="toy")
    await scorer.open()
    limit, judge = asyncio.Semaphore(4), RulesJudge()

    async def case(trace: dict, text: str, name: str) -> Case:
        reading = Reading("answer", text=text, finish_reason="stop")
        outcome = "refused" if name == "platform" else judge.judge(reading, 200, None, blocked=False).outcome
        found = Case(f"{name}-{trace['name']}", trace["name"], False, outcome, reading, sampling=trace["sampling"])
        if not found.refused or name == "twin":
            return found
        prompt = await scorer.prompt_ids([Message(m["role"], m["content"]) for m in trace["messages"]])
        return replace(found, score=await scorer.score(prompt, await scorer.text_ids(text)))

    async with aiohttp.ClientSession() as session:

        async def answer(number: int, trace: dict, name: str) -> Case:
            body = {"model": "toy", "messages": trace["messages"], "seed": number, **trace["sampling"]}
            async with limit, session.post(f"{url}/v1/chat/completions", json=body) as response:
                text = (await response.json())["choices"][0]["message"]["content"]
            return await case(trace, text, name)

        hosted = await asyncio.gather(*(answer(i, trace, "hosted") for i, trace in enumerate(traces)))
        own = await asyncio.gather(*(answer(1000 + i, trace, "twin") for i, trace in enumerate(traces)))
    filled_in = {
        template: await asyncio.gather(
            *(case(t, template.format(subject=t["labels"]["subject"]), "platform") for t in traces[::4])
        )
        for template in (FOREIGN, FAMILIAR)
    }
    await scorer.aclose()

    refused = [found for found in hosted if found.refused]
    assert len(refused) > 50
    _, values = measure(refused, own)
    assert not any(e_bh(list(values), ALPHA))
    assert values.mean() < 1.0
    for template, injected in filled_in.items():
        acted = {found.trace_id for found in injected}
        route = [*injected, *(found for found in refused if found.trace_id not in acted)]
        norm, values = measure(route, own)
        accused = e_bh(list(values), ALPHA)
        assert all(accused[: len(injected)])
        assert not any(accused[len(injected) :])
        assert repetition(injected[0], norm).facts["template"] == template.format(subject="…").replace(
            "….", "…"
        ).replace("…,", "…")
