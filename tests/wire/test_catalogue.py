from pathlib import Path

import pytest

from probe.errors import CatalogueError
from probe.traces.values import Sampling
from probe.wire.backend import COUNTS, OTHERS, TIMINGS, TOKEN_IDS, Auth, Describe
from probe.wire.catalogue import backend_names, load_backend, read_backend
from probe.wire.dialects import dialect
from tests.wire.catalogue_kit import GOOD, SIGNATURE, write


def test_a_small_file(tmp_path: Path) -> None:
    backend = read_backend(write(tmp_path, GOOD))
    assert (backend.name, backend.kind, backend.url, backend.auth, backend.stream_default) == (
        "test",
        "hosted",
        None,
        None,
        True,
    )
    sent, dropped = backend.parameters.to_wire(Sampling())
    assert sent == {"temperature": 1.0, "top_k": -1}
    assert dropped == ("top_p", "min_p", "repeat_penalty", "presence_penalty", "frequency_penalty", "max_tokens")


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ('title = "Test"', "", "title is missing"),
        ('title = "Test"', 'title = ""', "title is empty"),
        ('title = "Test"', "title = 5", "title must be a text, not 5"),
        ('title = "Test"', 'title = "Test"\ncolour = 1', "colour is an unknown key"),
        ('kind = "hosted"', 'kind = "near"', "kind must be one of local, hosted, not 'near'"),
        ('"openai-chat"', '"morse"', "dialect must be one of openai-chat, "),
        ('temperature = "temperature"', 'heat = "temperature"', "parameters.heat is no sampling parameter"),
        ("off = -1", "on = -1", "parameters.top_k.off is missing"),
        ('models = "/v1/models"', "", "describe.models is missing"),
        ('about = ["parameters", "describe"]', 'about = ["describe"]', "parameters has no source"),
        ('source = "https://example.org"', "", "facts[0].source is missing"),
        ('"primary"', '"sure"', "facts[0].confidence must be one of"),
        ("[parameters]", "[headers]\nX = 1\n[parameters]", "headers.X must be a text"),
        ("[parameters]", '[headers]\nX = "1"\n[parameters]', "headers.X has no source"),
        ("[parameters]", "[request]\nx = 1\n[parameters]", "request.x has no source"),
        ('dialect = "openai-chat"', 'dialect = "openai-chat"\nlogprobs = 1', "logprobs must be true or false"),
        ('dialect = "openai-chat"', 'dialect = "openai-chat"\ninclude = ["../x"]', "include must be names"),
        ('dialect = "openai-chat"', 'dialect = "openai-chat"\ninclude = ["none"]', "cannot be read"),
        ('title = "Test"', 'title = "Test', "is not valid TOML"),
    ],
)
def test_mistakes_are_one_sentence_with_file_and_key(tmp_path: Path, old: str, new: str, words: str) -> None:
    assert old in GOOD
    with pytest.raises(CatalogueError) as caught:
        read_backend(write(tmp_path, GOOD.replace(old, new, 1)))
    assert words in str(caught.value)
    assert ".toml" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("condition", "words"),
    [
        ("", "signatures[0] states no condition"),
        ("status = 'x'", "signatures[0].status must be a number"),
        ("status = []", "signatures[0].status must be a number"),
        ("finish_reason = '('", "signatures[0].finish_reason is not a regular expression"),
        ("json = { 'a b' = 'x' }", "is not a JMESPath expression"),
        ("json = { a = 1 }", "signatures[0].json.a must be a text"),
        ("headers = { a = '(' }", "is not a regular expression"),
        ("body = 'x'", "signatures[0].body needs a status of 400 or above"),
        ("body = 'x'\nstatus = [200, 400]", "signatures[0].body needs a status of 400 or above"),
        ("status = 400\ntext = 'much'", "signatures[0].text must be one of none, some"),
        ("status = 400\nweather = 'x'", "signatures[0].weather is an unknown key"),
    ],
)
def test_mistakes_in_signatures(tmp_path: Path, condition: str, words: str) -> None:
    with pytest.raises(CatalogueError) as caught:
        read_backend(write(tmp_path, GOOD + SIGNATURE + condition))
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ('"platform"', '"model"', 'author is "model" exactly where'),
        ('"declared_block"', '"model_refusal"', 'author is "model" exactly where'),
        ('"declared_block"', '"redaction"', 'author must be "unknown"'),
        ('layer = "gateway"', 'layer = "cloud"', "layer must be one of"),
        ('source = "https://example.org"', "", "signatures[0].source is missing"),
    ],
)
def test_words_of_signatures_must_agree(tmp_path: Path, old: str, new: str, words: str) -> None:
    with pytest.raises(CatalogueError) as caught:
        read_backend(write(tmp_path, GOOD + SIGNATURE.replace(old, new) + "status = 400"))
    assert words in str(caught.value)


def test_an_id_stands_once(tmp_path: Path) -> None:
    with pytest.raises(CatalogueError, match="'a' twice"):
        read_backend(write(tmp_path, GOOD + 2 * (SIGNATURE + "status = 400\n")))


def test_a_folder_of_ones_own_goes_before_the_shipped_files(tmp_path: Path) -> None:
    write(tmp_path, GOOD)
    assert load_backend("test", tmp_path).title == "Test"
    assert "test" in backend_names(tmp_path)
    (tmp_path / "vllm.toml").write_text(GOOD)
    assert load_backend("vllm", tmp_path).title == "Test"
    assert load_backend("vllm").title == "vLLM"


@pytest.mark.parametrize("name", ["nowhere", "", "../backends/vllm", "common/gateways", "/etc/passwd"])
def test_unknown_backends(name: str) -> None:
    with pytest.raises(CatalogueError, match="There is no backend") as caught:
        load_backend(name)
    assert "`probe backends` lists all of them." in str(caught.value)


@pytest.mark.parametrize(
    ("name", "near"),
    [("gorq", "groq"), ("OpenRouter", "openrouter"), ("lama.cpp", "llamacpp"), ("lm-studio", "lmstudio")],
)
def test_a_name_that_is_nearly_right_is_answered_with_the_right_one(name: str, near: str) -> None:
    with pytest.raises(CatalogueError, match=f"near it are: .*{near}"):
        load_backend(name)


def test_parts_are_included_before_the_files_own(tmp_path: Path) -> None:
    (tmp_path / "common").mkdir()
    (tmp_path / "common" / "part.toml").write_text(SIGNATURE.replace('"a"', '"b"') + "status = 400")
    text = GOOD.replace('title = "Test"', 'title = "Test"\ninclude = ["part"]') + SIGNATURE + "status = 400"
    assert [signature.id for signature in read_backend(write(tmp_path, text)).signatures] == ["b", "a"]


def test_parts_include_parts_and_each_counts_once(tmp_path: Path) -> None:
    common = tmp_path / "common"
    common.mkdir()
    for name in ("a", "b"):
        (common / f"{name}.toml").write_text(SIGNATURE.replace('"a"', f'"{name}"') + "status = 400")
    (common / "all.toml").write_text('include = ["b", "all", "a"]\n' + SIGNATURE.replace('"a"', '"c"') + "status = 400")
    text = GOOD.replace('title = "Test"', 'title = "Test"\ninclude = ["a", "all"]')
    assert [signature.id for signature in read_backend(write(tmp_path, text)).signatures] == ["a", "b", "c"]


REPORT = """
[[reports]]
field = "usage.prompt_time"
means = "prompt"
unit = "ms"
source = "https://example.org"
confidence = "primary"
"""


def test_reports_are_read_from_the_file_and_its_parts(tmp_path: Path) -> None:
    (tmp_path / "common").mkdir()
    (tmp_path / "common" / "part.toml").write_text(REPORT.replace("usage.prompt_time", "header:x-time"))
    text = GOOD.replace('title = "Test"', 'title = "Test"\ninclude = ["part"]') + REPORT + 'needs = "an option"\n'
    first, second = read_backend(write(tmp_path, text)).reports
    assert (first.header, first.search, first.keys, first.needs) == ("x-time", None, None, None)
    assert (second.header, second.keys, second.means, second.unit, second.needs) == (
        None,
        {"usage"},
        "prompt",
        "ms",
        "an option",
    )
    assert second.search({"usage": {"prompt_time": 3}}) == 3


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ('means = "prompt"', 'means = "hurry"', "reports[0].means must be one of prompt, "),
        ('unit = "ms"', 'unit = "minutes"', "reports[0].unit must be one of s, ms, us, ns"),
        ('unit = "ms"', "", "reports[0].unit is missing: s, ms, us or ns"),
        ('means = "prompt"', 'means = "provider"', "reports[0].unit stands exactly beside durations"),
        ("usage.prompt_time", "usage.", "reports[0].field is not a JMESPath expression"),
        ("usage.prompt_time", "header:X-Time", "reports[0].field must name a header in lower case"),
        ("usage.prompt_time", "header:", "reports[0].field must name a header in lower case"),
        ('source = "https://example.org"', "", "reports[0].source is missing"),
        ('"primary"', '"sure"', "reports[0].confidence must be one of"),
        ('unit = "ms"', 'unit = "ms"\ncolour = 1', "reports[0].colour is an unknown key"),
    ],
)
def test_mistakes_in_reports(tmp_path: Path, old: str, new: str, words: str) -> None:
    assert old in REPORT
    with pytest.raises(CatalogueError) as caught:
        read_backend(write(tmp_path, GOOD + REPORT.replace(old, new, 1)))
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_backend_without_a_list_of_models(tmp_path: Path) -> None:
    text = GOOD.replace('[describe]\nmodels = "/v1/models"\n', "").replace(
        '["parameters", "describe"]', '["parameters"]'
    )
    assert read_backend(write(tmp_path, text)).describe == Describe(None, None)


ISSUE = {
    "OpenRouter": "openrouter",
    "Together": "together",
    "Fireworks": "fireworks",
    "Groq": "groq",
    "DeepInfra": "deepinfra",
    "Cerebras": "cerebras",
    "SambaNova": "sambanova",
    "Novita": "novita",
    "Nebius": "nebius",
    "Hyperbolic": "hyperbolic",
    "SiliconFlow": "siliconflow",
    "Hugging Face router": "huggingface",
    "DashScope": "dashscope",
    "DeepSeek": "deepseek",
    "Zhipu": "zhipu",
    "Moonshot": "moonshot",
    "MiniMax": "minimax",
    "StepFun": "stepfun",
    "Volcengine": "volcengine",
    "xAI": "xai",
    "Mistral": "mistral",
    "Azure": "azure",
    "Bedrock": "bedrock",
    "Vertex": "vertex",
    "Gemini": "gemini",
    "Cloudflare": "cloudflare",
    "Vercel gateway": "vercel",
    "Databricks": "databricks",
    "NVIDIA NIM": "nvidia-nim",
    "Replicate": "replicate",
    "LiteLLM": "litellm",
    "Portkey": "portkey",
    "NeMo Guardrails": "nemo",
    "Kong": "kong",
    "Higress": "higress",
    "vLLM semantic router": "vllm-semantic-router",
    "Envoy AI gateway": "envoy-ai-gateway",
    "Ollama": "ollama",
    "vLLM": "vllm",
    "llama.cpp": "llamacpp",
    "SGLang": "sglang",
    "TGI": "tgi",
    "LM Studio": "lmstudio",
}
"""Every kind of server and provider that users were promised, and its file."""


@pytest.mark.parametrize("name", ISSUE.values(), ids=ISSUE)
def test_every_promised_backend_is_there(name: str) -> None:
    backend = load_backend(name)
    assert backend.facts
    assert backend.reports
    # A local server runs where its user put it; a hosted one has an address, or its file says why not.
    assert backend.url or backend.kind == "local" or any("url" in f.about for f in backend.facts) or name in OWN_ADDRESS
    sent, dropped = backend.parameters.to_wire(Sampling(seed=1))
    assert len(sent) + len(dropped) == 9
    assert "max_tokens" not in dropped
    assert dialect(backend.dialect).name == backend.dialect


OWN_ADDRESS = {"azure", "bedrock", "litellm", "nemo", "higress", "vllm-semantic-router", "envoy-ai-gateway"}
"""Their addresses are their owners'; the files' first lines say so."""


@pytest.mark.parametrize("name", backend_names())
def test_every_shipped_claim_has_a_source_and_a_word_for_how_sure_it_is(name: str) -> None:
    backend = load_backend(name)
    for entry in (*backend.facts, *backend.reports, *backend.signatures, *backend.canned):
        assert len(entry.source) > 7, entry
        assert entry.confidence in {"primary", "recorded", "unconfirmed"}
        # What is only remembered decides nothing.
        assert not entry.source.startswith("from memory") or entry.confidence == "unconfirmed", entry


def test_the_words_for_what_answers_reveal_are_all_used() -> None:
    used = {report.means for name in backend_names() for report in load_backend(name).reports}
    assert {*TIMINGS, *COUNTS, *TOKEN_IDS, *OTHERS} - used == set()


def test_the_shipped_backends() -> None:
    more = {"openai", "anthropic", "openai-completions", "openai-responses", "ollama-generate"}
    assert {*ISSUE.values(), *more} == set(backend_names())
    openrouter = load_backend("openrouter")
    assert openrouter.auth == Auth("Authorization", "Bearer")
    assert openrouter.headers["X-OpenRouter-Metadata"] == "enabled"
    assert openrouter.describe == Describe("/v1/models")
    for name in ("llamacpp", "vllm", "ollama"):
        backend = load_backend(name)
        assert (backend.kind, backend.signatures, backend.parameters.to_wire(Sampling())[1]) == ("local", (), ())
        assert any("timings" in fact.about for fact in backend.facts)
