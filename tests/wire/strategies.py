"""Arbitrary JSON and responses, for property tests."""

import json

from hypothesis import strategies as st

from probe.traces.values import Message, Sampling

KEYS = [
    "choices", "message", "delta", "content", "error", "usage", "logprobs", "finish_reason", "index", "model", "id",
    "reasoning", "reasoning_content", "reasoning_details", "thinking", "refusal", "text", "type", "timings", "metrics",
    "prompt_tokens", "completion_tokens", "completion_tokens_details", "prompt_ms", "top_logprobs", "token", "logprob",
    "done", "done_reason", "eval_count", "eval_duration", "remote_host", "metadata", "raw", "code", "detail",
    "provider", "base_resp", "status_code", "native_finish_reason", "system_fingerprint", "tool_calls",
    "openrouter_metadata", "pipeline", "guardrails", "contentFilter", "content_filter_results",
    "response", "output", "status", "incomplete_details", "delta", "summary", "input_tokens", "output_tokens",
    "content_block", "stop_reason", "stop_details", "candidates", "parts", "thought", "promptFeedback", "blockReason",
    "finishReason", "usageMetadata", "logprobsResult", "chosenCandidates", "topCandidates", "stopReason", "metrics",
    "reasoningContent", "contentBlockIndex", "tokens", "token_logprobs", "prompt", "system", "input", "contents",
    "generationConfig", "inferenceConfig", "systemInstruction", "instructions",
]  # fmt: skip

SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from(["error", "{}", '{"error":{"code":"1301"}}', "\ud83d", "\udc4d", "<think>", "</think>", "stop"])
)
JSON = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=5),
    max_leaves=25,
)
BODIES = (
    JSON.map(lambda value: json.dumps(value).encode())
    | st.lists(JSON, max_size=5).map(
        lambda values: b"".join(b"data: " + json.dumps(v).encode() + b"\n\n" for v in values)
    )
    | st.lists(JSON, max_size=5).map(lambda values: b"".join(json.dumps(v).encode() + b"\n" for v in values))
    | st.binary(max_size=60)
    | st.sampled_from(
        [b"", b"[" * 100_000, b'{"a":' * 100_000, b"data: [DONE]\n\n", b"<html><title>x</title>", b"1" * 5000]
    )
)
TYPES = st.sampled_from(
    [
        (),
        (("Content-Type", "application/json"),),
        (("Content-Type", "text/event-stream"),),
        (("Content-Type", "text/html"),),
        (("Content-Type", "application/x-ndjson"),),
        (("Content-Encoding", "gzip"),),
        (("Content-Encoding", "br, x"),),
    ]
)
STATUSES = st.sampled_from([None, 200, 204, 302, 400, 403, 446, 500])
STATES = st.sampled_from(["complete", "cut", "timeout", "unreachable", "client_gone"])

MESSAGES = st.lists(
    st.builds(Message, st.sampled_from(["system", "user", "assistant"]), st.text(max_size=20)), min_size=1, max_size=4
).map(tuple)
UNIT = st.floats(0, 1, allow_nan=False)
SAMPLINGS = st.builds(
    Sampling,
    UNIT,
    UNIT,
    st.integers(0, 100),
    UNIT,
    UNIT,
    UNIT,
    UNIT,
    st.integers(1, 4096),
    st.none() | st.integers(0, 2**32),
)
