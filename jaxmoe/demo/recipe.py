"""How the demo model is trained, in numbers."""

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Shapes:
    """The experts of a model; all else is as the demo model has it.

    experts: in a layer. experts_per_token: chosen for each token. expert_hidden: hidden
      units of each.
    """

    experts: int = 64
    experts_per_token: int = 8
    expert_hidden: int = 48

    @property
    def attributes(self) -> dict[str, Any]:
        """What config.json says of them."""
        return {
            "num_experts": self.experts,
            "num_experts_per_tok": self.experts_per_token,
            "moe_intermediate_size": self.expert_hidden,
        }


@dataclass(frozen=True)
class Recipe:
    """How the model is trained.

    steps: updates. batch: answers in an update. learning_rate: the highest.
    warm_up: updates until the learning rate is reached, from which it falls linearly
      to 0.
    weight_decay: of AdamW. clip: the largest norm of a gradient.
    balance: weight of the balancing loss, which is 1 where all experts are chosen
      equally often.
    seed: of weights, batches and noise.
    tries: the most that an answer has. The last is right, those before it are not; how
      many fail, 0 to tries - 1, is equally likely.
    policy: how an answer's tokens are routed, by its name on the command line, as
      where answers are drawn; those of the problem are routed without noise.
    """

    steps: int = 4_000
    batch: int = 128
    learning_rate: float = 3e-3
    warm_up: int = 100
    weight_decay: float = 0.01
    clip: float = 1.0
    balance: float = 0.01
    seed: int = 0
    tries: int = 1
    policy: str = "topk"

    def describe(self) -> dict[str, Any]:
        """What must be the same when a run goes on.

        Default policy and tries are left out: they are those of runs from before there
        were any others, which do not name them.
        """
        found = asdict(self)
        for name in ("policy", "tries"):
            if found[name] == getattr(Recipe, name):
                del found[name]
        return found
