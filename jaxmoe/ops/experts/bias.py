"""What experts with biases add to their two products."""

from typing import NamedTuple

from jaxmoe.ops.stack import OfLayer, whole
from jaxmoe.typing import Array, Num


class ExpertBias(NamedTuple):
    """Biases of all experts, in the type of their matrices.

    gate_up: [E, 2, F]. down: [E, D], inside the expert's weight: it counts as the
    product does.
    """

    gate_up: Num[Array, "E 2 F"] | OfLayer
    down: Num[Array, "E D"] | OfLayer

    def whole(self) -> "ExpertBias":
        """As arrays of their own."""
        return ExpertBias(whole(self.gate_up), whole(self.down))
