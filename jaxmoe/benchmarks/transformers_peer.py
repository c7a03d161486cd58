"""The same model in transformers, with the same weights: the only file with torch."""

from collections.abc import Callable, Iterator, Sequence, Set
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
import numpy as np

from jaxmoe.benchmarks.peer import Task, contenders, quickest
from jaxmoe.benchmarks.peer_tensors import named_parts
from jaxmoe.benchmarks.subject import Subject
from jaxmoe.benchmarks.timing import Side
from jaxmoe.checkpoints.bundled import BUNDLED
from jaxmoe.execution import cores

LIBRARIES = ("torch", "transformers")
DECODING = ("eager", "batched_mm", "grouped_mm")
PREPARING = ("eager", "grouped_mm")
"""Without batched_mm, which copies an expert for each row: a prompt's fill memory."""
ATTENTION = ("sdpa", "eager")
STEPS = 4


@dataclass(frozen=True)
class _Way:
    """experts, attention: transformers' names of implementations. threads: torch's."""

    experts: str
    attention: str
    threads: int

    def __str__(self) -> str:
        return f"{self.experts}, {self.attention}, {self.threads} threads"


def require(backend: str) -> None:
    """An ImportError that says what to install, unless both are here and fit."""
    try:
        import torch
        import transformers  # noqa: F401
    except ImportError as error:
        raise ImportError(
            f"--peer transformers needs torch and transformers ({error}); install "
            'them with pip install ".[parity]"'
        ) from None
    if backend != "cpu" and not torch.cuda.is_available():
        raise ImportError(
            f"JAX computes on {backend} and this torch {torch.__version__} does not; "
            "install a torch built for the same device"
        )


class TransformersPeer:
    """Qwen3MoeForCausalLM: float32 on CPU, bfloat16 (and JAX's own memory) on a GPU."""

    def __init__(self, subject: Subject):
        import torch
        import transformers

        self.device = "cpu" if subject.place.backend == "cpu" else "cuda"
        self.weights = "float32" if self.device == "cpu" else "bfloat16"
        config = transformers.Qwen3MoeConfig(**subject.preset.attributes)
        with torch.device("meta"):
            model: Any = transformers.Qwen3MoeForCausalLM(config)
        model.load_state_dict(_state(subject, model.state_dict().keys()), assign=True)
        # Made of no weights, so that the line above has left it without memory.
        rotary = type(model.model.rotary_emb)
        with torch.device(self.device):
            model.model.rotary_emb = rotary(config=config)
        self.model = model.eval()

    def decoding(self, prompt: np.ndarray, n: int) -> tuple[Task, ...]:
        """`STEPS` greedy steps; the caches are cut back before each run."""
        self._use(_Way(PREPARING[0], ATTENTION[0], cores()))
        cache, token = self._prefill(prompt, n)

        def rewind() -> None:
            if grown := cache.get_seq_length() - len(prompt):
                cache.crop(-grown)

        def steps() -> None:
            following = token
            for _ in range(STEPS):
                following = self._forward(following, cache)
            self._wait()

        return self._best(DECODING, steps, rewind, STEPS)

    def preparing(self, prompt: np.ndarray, n: int) -> tuple[Task, ...]:
        """n copies of the prompt read, as `generate` does for n answers."""
        work = lambda: self._prefill(prompt, n)  # noqa: E731
        return self._best(PREPARING, work, lambda: None, 0)

    def _best(
        self,
        experts: tuple[str, ...],
        work: Callable[[], Any],
        prepare: Callable[[], None],
        steps: int,
    ) -> tuple[Task, ...]:
        """The same work in the ways worth timing.

        All implementations of experts first; of the quickest then, other attention,
        and on CPU fewer threads.
        """
        ways = {str(w): w for w in (_Way(e, ATTENTION[0], cores()) for e in experts)}
        sides = {name: self._side(way, work, prepare) for name, way in ways.items()}
        first = ways[quickest(sides)]
        others = [replace(first, attention=name) for name in ATTENTION[1:]]
        if self.device == "cpu":
            fewer = sorted({1, cores() // 2} - {0, cores()})
            others += [replace(first, threads=count) for count in fewer]
        sides |= {str(way): self._side(way, work, prepare) for way in others}
        return contenders(sides, steps)

    def _side(
        self, way: _Way, work: Callable[[], Any], prepare: Callable[[], None]
    ) -> Side:
        def prepared() -> None:
            self._use(way)
            prepare()

        return Side(work, prepared)

    def _use(self, way: _Way) -> None:
        import torch

        self.model.set_experts_implementation(way.experts)
        self.model.set_attn_implementation(way.attention)
        torch.set_num_threads(way.threads)

    def _prefill(self, prompt: np.ndarray, n: int) -> tuple[Any, Any]:
        """A cache of n copies of the prompt, and the tokens after it."""
        import torch
        import transformers

        tokens = torch.from_numpy(np.tile(prompt.astype(np.int64), (n, 1)))
        cache = transformers.DynamicCache(config=self.model.config)
        token = self._forward(tokens.to(self.device), cache)
        self._wait()
        return cache, token

    def _forward(self, tokens: Any, cache: Any) -> Any:
        """The most likely next tokens [n, 1]; `cache` grows."""
        import torch

        with torch.inference_mode():
            out = self.model(
                tokens, past_key_values=cache, use_cache=True, logits_to_keep=1
            )
            return out.logits[:, -1].argmax(-1, keepdim=True)

    def _wait(self) -> None:
        import torch

        if self.device == "cuda":
            torch.cuda.synchronize()


def scoring(
    pairs: Sequence[tuple[np.ndarray, np.ndarray]], batch: int
) -> tuple[Task, ...]:
    """The bundled demo model's log-likelihoods, float32 on CPU.

    In batches sorted by length, as lm-evaluation-harness has them. pairs: token ids of
    contexts and of their continuations.
    """
    import torch
    import transformers

    model: Any = transformers.AutoModelForCausalLM.from_pretrained(
        BUNDLED["demo"], dtype=torch.float32
    ).eval()
    rows = sorted(pairs, key=lambda pair: len(pair[0]) + len(pair[1]))
    batches = [rows[i : i + batch] for i in range(0, len(rows), batch)]

    def work() -> list[float]:
        return [value for each in batches for value in _scores(model, each)]

    def use(experts: str) -> None:
        model.set_experts_implementation(experts)
        torch.set_num_threads(cores())

    sides = {name: Side(work, partial(use, name)) for name in PREPARING}
    return contenders(sides, 0)


def _scores(
    model: Any, pairs: Sequence[tuple[np.ndarray, np.ndarray]]
) -> Iterator[float]:
    """Log-probability of each continuation."""
    import torch

    ids = [torch.from_numpy(np.concatenate(pair)).long() for pair in pairs]
    tokens = torch.nn.utils.rnn.pad_sequence(ids, batch_first=True)
    with torch.inference_mode():
        every = torch.log_softmax(model(tokens).logits, -1)
    for row, (before, after) in zip(every, pairs, strict=True):
        here = row[len(before) - 1 : len(before) + len(after) - 1]
        targets = torch.from_numpy(after).long()
        yield float(here[torch.arange(len(after)), targets].sum())


def _state(subject: Subject, names: Set[str]) -> dict[str, Any]:
    """The tensors called `names`, cut from the parameters by the converter's rules."""
    import torch

    runs = {}
    for array, parts in named_parts(subject, names):
        flat = _tensor(array).reshape(-1)
        for part in parts:
            run = flat[part.start : part.start + int(np.prod(part.shape))]
            runs.setdefault(part.name, {})[part.order] = run.reshape(part.shape)
    return {
        name: found[0]
        if len(found) == 1
        else torch.cat([found[i] for i in range(len(found))])
        for name, found in runs.items()
    }


def _tensor(array: jax.Array) -> Any:
    """On CPU a float32 copy; else a view of the device's memory."""
    import torch

    if next(iter(array.devices())).platform != "cpu":
        return torch.from_dlpack(array)
    bits = torch.from_numpy(np.asarray(array).view(np.int16).copy())
    return bits.view(torch.bfloat16).float()
