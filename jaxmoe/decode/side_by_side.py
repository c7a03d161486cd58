"""Programs side by side on a CPU's cores, where one of them keeps one core busy.

XLA does not share a product of small matrices among threads, and with small experts a
pass over prompts is mostly such products. JAX runs the programs of one Python thread
one after another, and those of several threads at once.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import jax

from jaxmoe.config import ModelConfig, MoEConfig
from jaxmoe.execution import Execution, cores, platform_of
from jaxmoe.model import Model
from jaxmoe.ops.experts.lanes import small_experts

A = TypeVar("A")
R = TypeVar("R")


def side_by_side(
    model: Model, call: Callable[[A], R], items: Iterable[A]
) -> Iterator[R]:
    """`call` of each item, in order.

    call: runs a program of `model`, in this thread or in another one, where settings
      that JAX keeps for one thread (`with jax.default_matmul_precision(...)`) do not
      hold. Which others run beside it must not matter.
    """
    threads = programs_at_once(model.config, model.execution)
    if threads == 1:
        yield from map(call, items)
        return
    with ThreadPoolExecutor(threads) as pool:
        # No more ahead than threads, as results may be large.
        ahead = deque()
        for item in items:
            ahead.append(pool.submit(lambda i=item: jax.block_until_ready(call(i))))
            if len(ahead) > threads:
                yield ahead.popleft().result()
        while ahead:
            yield ahead.popleft().result()


def programs_at_once(config: ModelConfig, execution: Execution) -> int:
    """How many programs are faster side by side than one after another."""
    one_device = execution.layout.mesh.size == 1
    if not one_device or platform_of(execution.layout) != "cpu":
        return 1
    return cores() if _small_experts(config) else 1


def _small_experts(config: ModelConfig) -> bool:
    kinds = {layer.feed_forward for layer in config.layers}
    experts = [kind.hidden for kind in kinds if isinstance(kind, MoEConfig)]
    return bool(experts) and small_experts(max(experts), config.d_model)
