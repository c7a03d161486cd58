"""What a model needs on a mesh of devices, and what a step takes: arithmetic alone.

No device is asked. What a program really holds and sends is counted elsewhere, from
the compiled program (`jaxmoe.benchmarks.traffic`), and compared with this.
"""

from jaxmoe.planning.chips import CHIPS, Chip
from jaxmoe.planning.exchanges import Exchange, minimum, step_exchanges
from jaxmoe.planning.memory import Caches, cache_bytes, weight_bytes
from jaxmoe.planning.plan import Load, Plan, Time, largest_n, plan_for, step_time
from jaxmoe.planning.scaling import Point, best_mesh, scale, shapes_of

__all__ = [
    "CHIPS",
    "Caches",
    "Chip",
    "Exchange",
    "Load",
    "Plan",
    "Point",
    "Time",
    "best_mesh",
    "cache_bytes",
    "largest_n",
    "minimum",
    "plan_for",
    "scale",
    "shapes_of",
    "step_exchanges",
    "step_time",
    "weight_bytes",
]
