"""A llama.cpp server of the embedded weights with a chat template of a test's own."""

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from probe.resources import data_folder

THINKING = """\
{%- for m in messages -%}
<|{{ m.role }}|>
{%- if m.reasoning_content is defined and m.reasoning_content -%}
<think>
{{ m.reasoning_content }}
</think>

{% endif -%}
{{ m.content }}<|end|>
{%- endfor -%}
{%- if add_generation_prompt -%}<|assistant|>{%- endif -%}
"""

FORGETFUL = """\
{%- for m in messages -%}<|{{ m.role }}|>{{ m.content }}<|end|>{%- endfor -%}
{%- if add_generation_prompt -%}<|assistant|>{%- endif -%}
"""

# As probe.serve.llamacpp_child, which takes the template of the weights: it leaves when its standard input closes.
_CHILD = """
import json, os, sys
options = json.loads(sys.stdin.readline())
answer = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)
import xllamacpp
params = xllamacpp.CommonParams()
params.model.path = options["model"]
params.hostnames, params.port = ["127.0.0.1"], 0
params.n_parallel, params.n_ctx = 2, 2048
params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1
params.verbosity, params.ui, params.fit_params, params.cache_ram_mib = 1, False, False, 0
params.cache_type_k = params.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32
params.flash_attn_type = xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
params.use_jinja, params.chat_template = True, options["template"]
server = xllamacpp.Server(params)
answer.write(server.listening_address + chr(10))
answer.flush()
sys.stdin.read()
os._exit(0)
"""


@contextmanager
def template_server(template: str) -> Iterator[str]:
    """Yield the address of the server."""
    child = subprocess.Popen(
        [sys.executable, "-c", _CHILD],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert child.stdin is not None
    assert child.stdout is not None
    try:
        options = {"model": str(data_folder("backends") / "toy" / "toy.gguf"), "template": template}
        child.stdin.write(json.dumps(options) + "\n")
        child.stdin.flush()
        yield child.stdout.readline().strip()
    finally:
        child.stdin.close()
        child.stdout.close()
        child.wait(timeout=10)
