"""How often a mesh chooses other experts than one device does.

    python -m jaxmoe.benchmarks.agreement --choices 1000000

Sums in another order round otherwise, and two experts that are tied but for rounding
may swap. Both go over the same random tokens with the same noise. One set of experts
that differs makes others differ that follow from it, so sequences with any difference
are counted too. On virtual CPU devices, which add up as real ones do.
"""

import argparse
import os
import re
import subprocess
import sys
from dataclasses import dataclass, replace

import jax
import numpy as np
from jax.sharding import AxisType

from jaxmoe.model import Model, load, model_layout
from jaxmoe.nn.decoder import param_specs
from jaxmoe.router.policies import ExpertSample
from jaxmoe.sampling import forward
from jaxmoe.sharding.rules import DATA, MODEL

TOKENS = 512
"""Of each sequence."""


@dataclass(frozen=True)
class Agreement:
    """What was compared, and how much of it was not equal.

    choices, different: sets of experts. sequences, touched: those with a difference.
    positions, greedy: most likely tokens.
    """

    choices: int = 0
    different: int = 0
    sequences: int = 0
    touched: int = 0
    positions: int = 0
    greedy: int = 0

    def and_of(self, other: "Agreement") -> "Agreement":
        """Both together."""
        names = self.__dataclass_fields__
        return Agreement(**{n: getattr(self, n) + getattr(other, n) for n in names})


def spread(model: Model, shape: tuple[int, int]) -> Model:
    """The model on the first devices of this process."""
    devices = jax.devices()[: shape[0] * shape[1]]
    mesh = jax.make_mesh(shape, (DATA, MODEL), (AxisType.Auto,) * 2, devices=devices)
    layout = model_layout(model.config, mesh)
    assert layout is not None
    specs = param_specs(model.config, layout, layers=model.execution.layers)
    params = jax.device_put(dict(model.params), layout.shardings(specs))
    return replace(model, params=params, layout=layout)


def compare(one: Model, other: Model, seed: int) -> Agreement:
    """Over one sequence of random tokens."""
    config, key = one.config, jax.random.key(seed)
    tokens = np.random.default_rng(seed).integers(0, config.vocab_size, TOKENS)
    passes = [
        forward(m, tokens, policy=ExpertSample(), key=key, return_routes=True)
        for m in (one, other)
    ]
    (logits, routes), (other_logits, other_routes) = passes
    layers = list(config.moe_layers)
    same = np.sort(routes[:, layers]) == np.sort(other_routes[:, layers])
    differs = ~same.all(axis=2)
    best = [np.asarray(a).argmax(axis=1) for a in (logits, other_logits)]
    return Agreement(
        choices=differs.size,
        different=int(differs.sum()),
        sequences=1,
        touched=int(differs.any()),
        positions=len(tokens),
        greedy=int((best[0] != best[1]).sum()),
    )


def measure(checkpoint: str, shape: tuple[int, int], choices: int) -> Agreement:
    """Agreement over so many sets of experts, or a few more."""
    one, found = load(checkpoint), Agreement()
    other = spread(one, shape)
    while found.choices < choices:
        found = found.and_of(compare(one, other, seed=found.sequences))
    return found


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(
        description="How often a mesh chooses other experts than one device does."
    )
    parser.add_argument("checkpoint", nargs="?", default="demo")
    parser.add_argument("--mesh", default="1x2", help="samples x model")
    parser.add_argument("--choices", type=int, default=1_000_000)
    args = parser.parse_args()
    shape = tuple(int(n) for n in args.mesh.split("x"))
    devices = shape[0] * shape[1]
    if len(jax.devices()) < devices:
        flags = os.environ.get("XLA_FLAGS", "")
        flags = re.sub(r"--xla_force_host_platform_device_count=\d+", "", flags)
        flags += f" --xla_force_host_platform_device_count={devices}"
        environment = os.environ | {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}
        command = [sys.executable, "-m", "jaxmoe.benchmarks.agreement", *sys.argv[1:]]
        sys.exit(subprocess.call(command, env=environment))
    found = measure(args.checkpoint, (shape[0], shape[1]), args.choices)
    print(
        f"{args.checkpoint}, mesh {args.mesh}: {found.different} of {found.choices} "
        f"sets of experts differ, in {found.touched} of {found.sequences} sequences; "
        f"{found.greedy} of {found.positions} most likely tokens"
    )


if __name__ == "__main__":
    main()
