"""The same model in llama.cpp, with the same weights: the only file with llama_cpp."""

import ctypes
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from jaxmoe.benchmarks import gguf
from jaxmoe.benchmarks.peer import Task, contenders
from jaxmoe.benchmarks.peer_tensors import named_parts
from jaxmoe.benchmarks.subject import Subject
from jaxmoe.benchmarks.timing import Side
from jaxmoe.execution import cores

LIBRARIES = ("llama_cpp_python",)
STEPS = 4
ROOM = 64
"""Positions of its own that each sample has."""

WHOLE = {
    "model.embed_tokens.weight": "token_embd.weight",
    "model.norm.weight": "output_norm.weight",
    "lm_head.weight": "output.weight",
}
LAYER = {
    "input_layernorm.weight": "attn_norm.weight",
    "self_attn.q_proj.weight": "attn_q.weight",
    "self_attn.k_proj.weight": "attn_k.weight",
    "self_attn.v_proj.weight": "attn_v.weight",
    "self_attn.o_proj.weight": "attn_output.weight",
    "self_attn.q_norm.weight": "attn_q_norm.weight",
    "self_attn.k_norm.weight": "attn_k_norm.weight",
    "post_attention_layernorm.weight": "ffn_norm.weight",
    "mlp.gate.weight": "ffn_gate_inp.weight",
    "mlp.experts.gate_up_proj": "ffn_gate_exps.weight ffn_up_exps.weight",
    "mlp.experts.down_proj": "ffn_down_exps.weight",
}
"""Hugging Face's names -> llama.cpp's; of two, each is one half of the tensor."""
FLOAT32 = ("norm.weight", "ffn_gate_inp.weight")
"""Ends of names of what llama.cpp wants in float32."""


def require(backend: str) -> None:
    """An ImportError that says what to install, unless it is here and fits."""
    try:
        import llama_cpp  # noqa: F401  # pyright: ignore[reportMissingImports]
    except (ImportError, OSError, RuntimeError) as error:
        raise ImportError(
            f"--peer llama.cpp needs llama-cpp-python ({error}); install it with "
            "pip install llama-cpp-python, which compiles it: some minutes"
        ) from None
    if backend != "cpu":
        raise ImportError(f"--peer llama.cpp is for CPUs, found {backend}")


class LlamaCppPeer:
    """Random weights as bfloat16 in a GGUF file, which llama.cpp maps."""

    weights = "bfloat16"

    def __init__(self, subject: Subject):
        import llama_cpp  # pyright: ignore[reportMissingImports]

        self._lib, self._vocab = llama_cpp, subject.config.vocab_size
        llama_cpp.llama_backend_init()
        self._silence = llama_cpp.llama_log_callback(lambda *_: None)
        llama_cpp.llama_log_set(self._silence, ctypes.c_void_p(0))
        options = llama_cpp.llama_model_default_params()
        options.n_gpu_layers = 0
        with tempfile.TemporaryDirectory(prefix="jaxmoe-bench-") as directory:
            path = Path(directory) / "model.gguf"
            write_gguf(path, subject)
            # The file may go: what is mapped of it stays.
            self._model = llama_cpp.llama_model_load_from_file(
                str(path).encode(), options
            )
        if not self._model:
            raise RuntimeError("llama.cpp does not take the model that was written")

    def __del__(self):
        if getattr(self, "_model", None):
            self._lib.llama_model_free(self._model)

    def decoding(self, prompt: np.ndarray, n: int) -> tuple[Task, ...]:
        """`STEPS` greedy steps of n sequences that share the prompt's cache."""
        run = _Run(self._lib, self._model, self._vocab, len(prompt), n)
        first = run.read(prompt)

        def steps() -> None:
            tokens = first
            for step in range(STEPS):
                tokens = run.step(tokens, len(prompt) + step)

        return self._by_threads(run, steps, run.rewind, STEPS)

    def preparing(self, prompt: np.ndarray, n: int) -> tuple[Task, ...]:
        """The prompt read once, and its cache shared by n sequences."""
        run = _Run(self._lib, self._model, self._vocab, len(prompt), n)
        return self._by_threads(run, lambda: run.read(prompt), lambda: None, 0)

    def greedy(self, prompt: np.ndarray, tokens: int) -> list[int]:
        """The most likely tokens after a prompt: for who wants to see that it is the
        same model."""
        run = _Run(self._lib, self._model, self._vocab, len(prompt), 1)
        found = [run.read(prompt)]
        for step in range(tokens - 1):
            found.append(run.step(found[-1], len(prompt) + step))
        return [int(each[0]) for each in found]

    def _by_threads(
        self,
        run: "_Run",
        work: Callable[[], Any],
        prepare: Callable[[], Any],
        steps: int,
    ) -> tuple[Task, ...]:
        def prepared(threads: int) -> None:
            run.use(threads)
            prepare()

        sides = {
            f"{threads} threads": Side(work, lambda t=threads: prepared(t))
            for threads in sorted({1, cores()})
        }
        return contenders(sides, steps)


class _Run:
    """A context of llama.cpp: caches of n sequences."""

    def __init__(self, lib: Any, model: Any, vocab: int, prompt: int, n: int):
        self._lib, self._vocab, self._prompt, self._n = lib, vocab, prompt, n
        size = max(prompt, n)
        options = lib.llama_context_default_params()
        options.n_ctx = -(-(prompt + n * ROOM) // 256) * 256
        options.n_batch = options.n_ubatch = size
        options.n_seq_max = n
        options.kv_unified = True
        self._context = lib.llama_init_from_model(model, options)
        if not self._context:
            raise RuntimeError(f"llama.cpp makes no context for {n} sequences")
        self._memory = lib.llama_get_memory(self._context)
        self._batch = lib.llama_batch_init(size, 0, 1)

    def __del__(self):
        if getattr(self, "_context", None):
            self._lib.llama_batch_free(self._batch)
            self._lib.llama_free(self._context)

    def use(self, threads: int) -> None:
        """From now on computes on so many threads."""
        self._lib.llama_set_n_threads(self._context, threads, threads)

    def read(self, prompt: np.ndarray) -> np.ndarray:
        """Forgets all and reads a prompt; the most likely tokens after it, [n]."""
        self._lib.llama_memory_clear(self._memory, False)
        places = enumerate(prompt.tolist())
        last = len(prompt) - 1
        self._decode([(token, at, 0, at == last) for at, token in places])
        for sequence in range(1, self._n):
            self._lib.llama_memory_seq_cp(self._memory, 0, sequence, -1, -1)
        return np.repeat(self._most_likely(last), self._n)

    def step(self, tokens: np.ndarray, position: int) -> np.ndarray:
        """One token of each sequence; the most likely ones after them, [n]."""
        self._decode([(t, position, s, True) for s, t in enumerate(tokens.tolist())])
        return np.array([self._most_likely(row) for row in range(self._n)])

    def rewind(self) -> None:
        """Forgets all that came after the prompt."""
        for sequence in range(self._n):
            self._lib.llama_memory_seq_rm(self._memory, sequence, self._prompt, -1)

    def _decode(self, rows: list[tuple[int, int, int, bool]]) -> None:
        """rows: token, position, sequence, and whether its logits are wanted."""
        batch = self._batch
        batch.n_tokens = len(rows)
        for row, (token, position, sequence, wanted) in enumerate(rows):
            batch.token[row], batch.pos[row] = token, position
            batch.n_seq_id[row], batch.seq_id[row][0] = 1, sequence
            batch.logits[row] = wanted
        if status := self._lib.llama_decode(self._context, batch):
            raise RuntimeError(f"llama_decode failed with {status}")

    def _most_likely(self, row: int) -> int:
        logits = self._lib.llama_get_logits_ith(self._context, row)
        return int(np.ctypeslib.as_array(logits, (self._vocab,)).argmax())


# -- the file ------------------------------------------------------------------------


def write_gguf(path: Path, subject: Subject) -> None:
    """The subject as llama.cpp reads it: same weights, no tokenizer.

    Raises:
      ValueError: a layer without experts, or a tied head.
    """
    config, read = subject.config, subject.preset.attributes
    if config.moe_layers != tuple(range(config.num_layers)) or config.tie_embeddings:
        raise ValueError("expected experts in every layer, and a head of its own")
    values = {
        "block_count": read["num_hidden_layers"],
        "context_length": read["max_position_embeddings"],
        "embedding_length": read["hidden_size"],
        "feed_forward_length": read["intermediate_size"],
        "expert_feed_forward_length": read["moe_intermediate_size"],
        "attention.head_count": read["num_attention_heads"],
        "attention.head_count_kv": read["num_key_value_heads"],
        "attention.key_length": read["head_dim"],
        "attention.value_length": read["head_dim"],
        "attention.layer_norm_rms_epsilon": read["rms_norm_eps"],
        "rope.freq_base": read["rope_parameters"]["rope_theta"],
        "expert_count": read["num_local_experts"],
        "expert_used_count": read["num_experts_per_tok"],
        "vocab_size": read["vocab_size"],
    }
    name = "qwen3moe"
    metadata = {"general.architecture": name, "tokenizer.ggml.model": "none"}
    metadata |= {f"{name}.{key}": value for key, value in values.items()}
    gguf.write(path, metadata, dict(_tensors(subject)))


def _tensors(subject: Subject) -> Iterator[tuple[str, np.ndarray]]:
    names = WHOLE | {
        f"model.layers.{index}.{theirs}": " ".join(
            f"blk.{index}.{each}" for each in ours.split()
        )
        for index in range(subject.config.num_layers)
        for theirs, ours in LAYER.items()
    }
    for array, parts in named_parts(subject, names.keys()):
        flat = np.asarray(array).reshape(-1)
        for part in parts:
            tensor = flat[part.start : part.start + int(np.prod(part.shape))]
            tensor = tensor.reshape(part.shape)
            ours = names[part.name].split()
            # Gate and up of an expert are the halves of its rows.
            halves = np.split(tensor, len(ours), axis=min(1, tensor.ndim - 1))
            for name, half in zip(ours, halves, strict=True):
                yield name, _as_wanted(name, half)


def _as_wanted(name: str, bits: np.ndarray) -> np.ndarray:
    """bfloat16 bits, or where llama.cpp wants them the float32 that they begin."""
    if not name.endswith(FLOAT32):
        return bits
    return (bits.astype(np.uint32) << 16).view(np.float32)
