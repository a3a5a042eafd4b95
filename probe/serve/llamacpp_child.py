"""The process that holds one llama.cpp server; started by ``probe.serve.llamacpp``, never by hand.

A process of its own, because llama.cpp ends the process it lives in when something is badly wrong, and that must not
end a run. It leaves when its standard input closes, so a parent killed with ``kill -9`` leaves no server behind (works
on Linux and macOS, without signals).
"""

import json
import os
import sys
import threading
from importlib.metadata import version


def main() -> None:
    """Read one JSON line of options from standard input, serve, print one JSON line with the address, wait for EOF."""
    options = json.loads(sys.stdin.readline())
    # llama.cpp logs to both standard streams; keep the one we answer on to ourselves.
    answer = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)

    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = options["model"]
    params.model_alias = {options["model_id"]}
    params.hostnames = ["127.0.0.1"]
    params.port = options["port"]
    params.n_parallel = options["parallel"]
    params.n_ctx = options["context"] * options["parallel"]
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = options["threads"]
    params.verbosity = 1
    params.ui = False
    params.endpoint_props = False
    params.fit_params = False
    # Scores must agree with another engine's to 1e-4: no half-precision cache, no fused attention.
    params.cache_type_k = params.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32
    params.flash_attn_type = xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
    params.cache_ram_mib = 0
    if options["template"] is not None:
        params.chat_template = options["template"]
    # llama.cpp keeps each value as the JSON that it is.
    params.default_template_kwargs = {key: json.dumps(value) for key, value in options["template_arguments"].items()}
    if options["gpu_layers"] is not None:
        params.n_gpu_layers = options["gpu_layers"]
    server = xllamacpp.Server(params)

    answer.write(json.dumps({"url": server.listening_address, "build": f"xllamacpp {version('xllamacpp')}"}) + "\n")
    answer.flush()
    done = threading.Event()

    def watch() -> None:
        sys.stdin.read()
        done.set()

    threading.Thread(target=watch, daemon=True).start()
    done.wait()
    # Without the interpreter's shutdown: the server's C++ threads may be in the middle of an answer nobody waits for.
    os._exit(0)


if __name__ == "__main__":
    main()
