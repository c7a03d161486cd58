"""The same model in transformers, with the same weights: the only file with torch."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import jax
import numpy as np

from jaxmoe.benchmarks import machine
from jaxmoe.benchmarks.peer import Task, contenders
from jaxmoe.benchmarks.subject import Subject
from jaxmoe.benchmarks.timing import Side
from jaxmoe.checkpoints.plan import expand, order_of
from jaxmoe.families.registry import family_of
from jaxmoe.nn.segments import stored_names

LIBRARIES = ("torch", "transformers")
DECODING = ("eager", "batched_mm", "grouped_mm")
PREPARING = ("eager", "grouped_mm")
"""Without batched_mm, which copies an expert for each row: a prompt's fill memory."""
STEPS = 4


def require_peer(backend: str) -> None:
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
        torch.set_num_threads(machine.cores())
        config = transformers.Qwen3MoeConfig(**subject.preset.attributes)
        with torch.device("meta"):
            model: Any = transformers.Qwen3MoeForCausalLM(config)
        model.load_state_dict(_state(subject, model.state_dict()), assign=True)
        # Made of no weights, so that the line above has left it without memory.
        rotary = type(model.model.rotary_emb)
        with torch.device(self.device):
            model.model.rotary_emb = rotary(config=config)
        self.model = model.eval()

    def decoding(self, prompt: np.ndarray, n: int) -> tuple[Task, ...]:
        """`STEPS` greedy steps; the caches are cut back before each run."""
        self.model.set_experts_implementation(PREPARING[0])
        cache, token = self._prefill(prompt, n)

        def rewind() -> None:
            if grown := cache.get_seq_length() - len(prompt):
                cache.crop(-grown)

        def steps() -> None:
            following = token
            for _ in range(STEPS):
                following = self._forward(following, cache)
            self._wait()

        return contenders(self._sides(DECODING, steps, rewind), STEPS)

    def preparing(self, prompt: np.ndarray, n: int) -> tuple[Task, ...]:
        """n copies of the prompt read, as `generate` does for n answers."""
        work = lambda: self._prefill(prompt, n)  # noqa: E731
        return contenders(self._sides(PREPARING, work, lambda: None), 0)

    def _sides(
        self,
        names: Iterable[str],
        work: Callable[[], Any],
        prepare: Callable[[], None],
    ) -> dict[str, Side]:
        """The same work by each of transformers' implementations of experts."""

        def prepared(name: str) -> None:
            self.model.set_experts_implementation(name)
            prepare()

        return {name: Side(work, lambda n=name: prepared(n)) for name in names}

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


def _state(subject: Subject, names: Iterable[str]) -> dict[str, Any]:
    """The tensors called `names`, cut from the parameters by the converter's rules."""
    import torch

    runs, wanted = {}, set(names)
    tensors = family_of(subject.config).tensors
    for param, array in _unstacked(subject):
        flat = _tensor(array).reshape(-1)
        for rule in tensors:
            for name, shape, start in expand(rule, param, array.shape):
                if name in wanted:
                    size = int(np.prod(shape))
                    run = flat[start : start + size].reshape(shape)
                    runs.setdefault(name, []).append((order_of(rule, param), run))
    in_order = {name: sorted(found, key=lambda r: r[0]) for name, found in runs.items()}
    return {
        name: found[0][1] if len(found) == 1 else torch.cat([run for _, run in found])
        for name, found in in_order.items()
    }


def _unstacked(subject: Subject) -> Iterator[tuple[str, jax.Array]]:
    """Every parameter as it is stored, cut out of stacks of layers."""
    for name, array in subject.params.items():
        names = stored_names(name)
        if names == [name]:
            yield name, array
        else:
            yield from zip(names, array, strict=True)


def _tensor(array: jax.Array) -> Any:
    """On CPU a float32 copy; else a view of the device's memory."""
    import torch

    if next(iter(array.devices())).platform != "cpu":
        return torch.from_dlpack(array)
    bits = torch.from_numpy(np.asarray(array).view(np.int16).copy())
    return bits.view(torch.bfloat16).float()
