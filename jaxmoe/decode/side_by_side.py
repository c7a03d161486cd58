"""Programs side by side on a CPU's cores, where one of them keeps one core busy.

Of small experts a turn of the loop is a product that XLA does not share among threads,
and a pass over prompts is mostly such turns. JAX runs the programs of one Python thread
one after another, and those of several threads at once.
"""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from jaxmoe.config import ModelConfig, MoEConfig
from jaxmoe.execution import Execution, cores, platform_of
from jaxmoe.model import Model
from jaxmoe.ops.experts.lanes import LEAST_VALUES

A = TypeVar("A")
R = TypeVar("R")


def side_by_side(
    model: Model, call: Callable[[A], R], items: Iterable[A]
) -> Iterator[R]:
    """`call` of each item, in order.

    call: runs a program of `model` and waits for it. Which others run beside it must
      not matter.
    """
    threads = programs_at_once(model.config, model.execution)
    if threads == 1:
        yield from map(call, items)
        return
    with ThreadPoolExecutor(threads) as pool:
        yield from pool.map(call, items)


def programs_at_once(config: ModelConfig, execution: Execution) -> int:
    """How many programs are faster side by side than one after another."""
    one_device = execution.layout.mesh.size == 1
    if not one_device or platform_of(execution.layout) != "cpu":
        return 1
    return cores() if _small_experts(config) else 1


def _small_experts(config: ModelConfig) -> bool:
    kinds = {layer.feed_forward for layer in config.layers}
    experts = [kind.hidden for kind in kinds if isinstance(kind, MoEConfig)]
    largest = max(experts, default=LEAST_VALUES)
    return 3 * largest * config.d_model < LEAST_VALUES
