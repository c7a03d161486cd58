"""Checkpoints in FP8 with a scale a block: `quantization_config`, and their tensors.

    NAME.weight            F8_E4M3 [O, I]
    NAME.weight_scale_inv  F32 or BF16 [blocks of O, blocks of I]

of all projections and experts but those of `modules_to_not_convert`, and but the head.
What such a file says of activations, that kernels quantise them too, is not done here:
they stay as they are, as where transformers dequantises.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from jaxmoe.config import Fp8Weights, ModelConfig
from jaxmoe.families.attributes import OBJECT, Attributes, Kind, quote
from jaxmoe.families.base import Family, TensorRule
from jaxmoe.nn.decoder import abstract_params, products
from jaxmoe.ops.packed import SCALES

NAME = "quantization_config"
WEIGHT = ".weight"
_BLOCK = Kind(
    "two positive integers, such as [128, 128]",
    lambda x: (
        isinstance(x, list | tuple)
        and len(x) == 2
        and all(isinstance(i, int) and not isinstance(i, bool) and i > 0 for i in x)
    ),
    [128, 128],
)
_ONE_OF = {
    "activation_scheme": ("dynamic",),
    "fmt": ("e4m3", "float8_e4m3fn"),
    # What scales are rounded to, not how they are stored.
    "scale_fmt": ("float", "ue8m0"),
    "expert_dtype": ("fp8",),
    "dequantize": (True, False),
    "modules_to_convert": ([],),
}
"""Fields that say what is done anyway, at these values; null is as if absent."""


_MOST_NAMES = 20_000
_REPEATS = re.compile(r"[*+{]|(?<!\()\?")
_REPEATED_GROUP = re.compile(r"\)\s*[*+{]|\(\?[^:]|\\[1-9]")
"""What may take exponential time to match, or does more than match."""


def _is_pattern(name: Any) -> bool:
    """Whether it is a pattern that takes little time to match, as plain names do."""
    if not isinstance(name, str) or len(name) > 500:
        return False
    # Alternatives outside groups are tried one after another, so each counts alone.
    one_of = [name] if "(" in name else name.split("|")
    if any(len(_REPEATS.findall(one)) + one.count("|") > 3 for one in one_of):
        return False
    if _REPEATED_GROUP.search(name):
        return False
    try:
        re.compile(name)
    except (re.error, OverflowError, RecursionError):
        return False
    return True


_PATTERNS = Kind(
    f"a list of up to {_MOST_NAMES} names of modules, or of simple patterns of such",
    lambda x: (
        isinstance(x, list) and len(x) <= _MOST_NAMES and all(map(_is_pattern, x))
    ),
    [],
)


@dataclass(frozen=True)
class Quantisation:
    """What `quantization_config` says: the block, and modules that are floats."""

    block: tuple[int, int]
    kept: tuple[str, ...]


def take_quantisation(a: Attributes) -> Quantisation | None:
    """Takes `quantization_config` out of config.json where its method is fp8.

    What it has that is not done here is noted. Another method is left, and so is FP8
    with one scale a tensor, which has no blocks and other tensors.
    """
    found = a.left.get(NAME)
    if not isinstance(found, dict) or found.get("quant_method") != "fp8":
        return None
    if found.get("weight_block_size") is None:
        return None
    inner = Attributes(a.take(NAME, OBJECT), a.report, f"{NAME}.", a.file)
    del inner.left["quant_method"]
    rows, columns = inner.take("weight_block_size", _BLOCK)
    # MiniMax has another name for it.
    kept = inner.take("ignored_layers", _PATTERNS, [], [])
    kept = inner.take("modules_to_not_convert", _PATTERNS, kept, kept)
    for name, known in _ONE_OF.items():
        value = inner.left.pop(name, None)
        if value is not None and value not in known:
            inner.wrong(name, value, " or ".join(map(quote, known)))
    a.report.unsupported += inner.rest(set(), {})
    return Quantisation((rows, columns), tuple(kept))


def quantised(config: ModelConfig, family: Family, found: Quantisation) -> ModelConfig:
    """`config` with the weights that are FP8.

    Raises:
      ValueError: a weight that is FP8 in some layers and floats in others; a tensor of
        several weights, of which one does not begin where a block of the tensor does.
    """
    names, mixed, is_kept = [], [], _Kept(found.kept)
    for name in sorted(products(config)):
        kept = {
            module: is_kept(module) or is_kept(other)
            for module, other in _modules(config, family, name)
        }
        floats = [module for module in kept if kept[module]]
        if floats and not all(kept.values()):
            others = next(module for module in kept if not kept[module])
            mixed.append(f"{floats[0]}, not {others}")
        if kept and not floats:
            names.append(name)
    if mixed:
        raise ValueError(
            f"{NAME}.modules_to_not_convert in config.json: expected a projection's "
            f"name in all layers or in none, found {'; '.join(mixed)}; convert the "
            "model to bfloat16 with transformers, or take its release in bfloat16"
        )
    weights = Fp8Weights(found.block, tuple(names))
    if cut := sorted(set(_cut_blocks(config, family, weights))):
        raise ValueError(
            f"{NAME}.weight_block_size in config.json: expected the weights that share "
            f"a tensor to begin where its blocks of {found.block[0]} rows do, found "
            f"{'; '.join(cut)}; convert the model to bfloat16 with transformers, or "
            "take its release in bfloat16"
        )
    return replace(config, weights=weights)


def _cut_blocks(
    config: ModelConfig, family: Family, weights: Fp8Weights
) -> Iterator[str]:
    """Tensors with a block of rows that are of two weights: one scale for both."""
    shapes = {name: one.shape for name, one in abstract_params(config).items()}
    shared = [r for r in family.tensors if len(r.params) > 1 and _has_scale(r)]
    for rule in shared:
        if not _wanted(weights).intersection(rule.params):
            continue
        for layer in range(len(config.layers)):
            params = [name.format(i=layer) for name in rule.params]
            if not all(name in shapes for name in params):
                continue
            rows = [(rule.run(shapes[name]) or (0,))[0] for name in params]
            # Of the last one the last block may be cut short.
            if any(count % weights.block[0] for count in rows[:-1]):
                module = rule.tensor.removesuffix(WEIGHT).rpartition(".")[2]
                yield f"{module} of {' + '.join(map(str, rows))} rows"


def _modules(
    config: ModelConfig, family: Family, name: str
) -> Iterator[tuple[str, str]]:
    """The modules whose weights make up a parameter, of one expert where it has any.

    Each with the other name that a rule after it gives the same rows, or the same.
    """
    rules = [r for r in family.tensors if "layers.{i}." + name in r.params]
    found: dict[Any, list[str]] = {}
    for rule in filter(_has_scale, rules):
        module = rule.tensor.removesuffix(WEIGHT)
        kind = rule.param, rule.place, module.rpartition(".")[2]
        found.setdefault(kind, []).append(module)
    for layer in range(len(config.layers)):
        for modules in found.values():
            first, last = (m.format(i=layer, e=0) for m in (modules[0], modules[-1]))
            yield first, last


class _Kept:
    """Whether one of the names is a module's, one it lies in, or its last part.

    Names are read as transformers reads them, as patterns from the start on too.
    """

    def __init__(self, names: tuple[str, ...]):
        edge = r"(?:(?<=\.)|(?=\.|$))"
        self._names = names
        # Compiled once: there are thousands of them, and of modules.
        self._patterns = [re.compile(f"(?:{name}){edge}") for name in names]

    def __call__(self, module: str) -> bool:
        return module.endswith(self._names) or any(
            pattern.match(module) for pattern in self._patterns
        )


def _has_scale(rule: TensorRule) -> bool:
    return rule.tensor.endswith(WEIGHT)


def _wanted(weights: Fp8Weights) -> set[str]:
    """The names of the parameters, as rules have them."""
    return {"layers.{i}." + name for name in weights.names}


def with_scales(family: Family, weights: Fp8Weights) -> Family:
    """The family, with the types and scales of the tensors that are FP8."""
    wanted = _wanted(weights)
    rules: list[TensorRule] = []
    for rule in family.tensors:
        if not wanted.intersection(rule.params):
            rules.append(rule)
            continue
        rules.append(replace(rule, dtypes=("F8_E4M3",)))
        if _has_scale(rule):
            scales = [name + SCALES for name in rule.params]
            rules.append(
                TensorRule(
                    rule.tensor + "_scale_inv",
                    tuple(scales) if len(scales) > 1 else scales[0],
                    place=rule.place,
                    merge=(1, 1),
                    dtypes=("F32", "BF16"),
                )
            )
    return replace(family, tensors=tuple(rules))
