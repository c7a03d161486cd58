"""Recipes: which answers a published table takes, and what its source says of them."""

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields
from pathlib import Path
from typing import Any

from jaxmoe.config import ModelConfig
from jaxmoe.decode.sampler import TokenSampler
from jaxmoe.evals.claims import Claim
from jaxmoe.evals.draw import Draw, as_fields
from jaxmoe.planning.models import config_of
from jaxmoe.router.ensemble import RouteEnsemble
from jaxmoe.router.policies import POLICIES, Policy, for_model

RECIPES = Path(__file__).with_name("recipes")
SHARED = "paper"
"""The file of models and benchmarks, which is no recipe."""
MARGIN = 0.02
"""The effect that counts, where a claim does not say: of some 200 problems no interval
is narrow enough for one point."""


@dataclass(frozen=True)
class Benchmark:
    """Problems of one kind.

    task: as --task has it. max_new_tokens: of an answer; None for the task's own.
    problems: how many there are, where that is known; for costs without the data.
    prompt: tokens of a prompt, roughly; for costs. about: what is to be in the file.
    """

    task: str
    max_new_tokens: int | None = None
    problems: int | None = None
    prompt: int = 512
    about: str = ""


@dataclass(frozen=True)
class Row:
    """Answers drawn in one way, which is a run directory.

    sampler: a name of the recipe's samplers. numbers: of the policy; text such as
    "0.5k" is that many times the model's experts per token. n: answers to a problem;
    None for the recipe's. ensemble: J routes a token by the policy, averaged
    (`RouteEnsemble`); None for one pass.
    """

    name: str
    policy: str
    sampler: str
    numbers: Mapping[str, float | str] = field(default_factory=dict)
    n: int | None = None
    noisy_prefill: bool = False
    ensemble: int | None = None

    def policy_of(self, config: ModelConfig) -> Policy:
        """The policy of a model.

        Raises:
          ValueError: numbers that do not fit it.
        """
        numbers = {name: _number(v, config) for name, v in self.numbers.items()}
        try:
            policy: Policy = POLICIES[self.policy](**numbers)  # type: ignore[arg-type]
            if self.ensemble is not None:
                policy = RouteEnsemble(policy, self.ensemble)
            for_model(policy, config, several=not self.noisy_prefill)
        except (TypeError, ValueError) as error:
            raise ValueError(f"{self.name}: {error}") from None
        return policy


@dataclass(frozen=True)
class Figure:
    """A number of the source, in percent: a row's measure.

    note: what is not known of it.
    """

    model: str
    benchmark: str
    row: str
    measure: str
    percent: float
    note: str = ""


@dataclass(frozen=True)
class Recipe:
    """What is drawn, measured and claimed.

    n: answers to a problem. samplers: name -> numbers of `TokenSampler`. measures: of
    the table; "{n}" stands for n. models: name -> what has its shapes
    (`jaxmoe.planning.models.config_of`). checkpoint: the one that is meant where none
    is named. problems: only so many.
    routers: the row whose answers the routers are measured on, if they are. slots:
    answers side by side.
    """

    name: str
    about: str
    n: int
    samplers: Mapping[str, Mapping[str, float]]
    rows: tuple[Row, ...]
    measures: tuple[str, ...]
    models: Mapping[str, str]
    benchmarks: Mapping[str, Benchmark]
    claims: tuple[Claim, ...] = ()
    figures: tuple[Figure, ...] = ()
    checkpoint: str | None = None
    problems: int | None = None
    routers: str | None = None
    slots: int = 64

    def sampler_of(self, row: Row) -> TokenSampler:
        """How a row's tokens are drawn; nothing is taken from the checkpoint."""
        return TokenSampler(**self.samplers[row.sampler])  # type: ignore[arg-type]

    def draw_of(self, row: Row, config: ModelConfig, **drawn: Any) -> Draw:
        """A row as `jaxmoe.evals.evaluate.evaluate` wants it.

        drawn: max_new_tokens, seed and slots.
        """
        return Draw(
            row.policy_of(config),
            self.sampler_of(row),
            row.n or self.n,
            noisy_prefill=row.noisy_prefill,
            **drawn,
        )


def twins(recipe: Recipe, config: ModelConfig) -> dict[str, str]:
    """Row -> the earlier one that draws the same answers of this model.

    Of 4 experts a token "0.75k" are the default's 3, of 8 they are not its 5.
    """
    seen: dict[str, str] = {}
    found = {}
    for row in recipe.rows:
        policy = for_model(row.policy_of(config), config, several=True)
        drawn = as_fields(policy), as_fields(recipe.sampler_of(row))
        first = seen.setdefault(repr((drawn, row.n, row.noisy_prefill)), row.name)
        if first != row.name:
            found[row.name] = first
    return found


# -- which model ---------------------------------------------------------------------


def model_of(recipe: Recipe, config: ModelConfig) -> str | None:
    """The name of the recipe's model with these shapes; None where none has them."""
    for name, size in recipe.models.items():
        if _shapes(config_of(size)) == _shapes(config):
            return name
    return None


def require_model(recipe: Recipe, config: ModelConfig, checkpoint: str) -> str:
    """As `model_of`; a ValueError where the checkpoint is of another model."""
    if (found := model_of(recipe, config)) is not None:
        return found
    known = ", ".join(recipe.models)
    raise ValueError(
        f"recipe {recipe.name} is of {known}; found {checkpoint}, which has "
        f"{_in_words(config)}: choose another recipe, or run it all the same with "
        "--any-model, beside which no published figures are shown"
    )


def _shapes(config: ModelConfig) -> tuple[Any, ...]:
    """What tells models apart that a recipe names; two trainings of one do not."""
    experts = config.num_experts, config.experts_per_token
    return (config.family, config.num_layers, config.d_model, *experts)


def _in_words(config: ModelConfig) -> str:
    family, layers, width, experts, chosen = _shapes(config)
    return (
        f"{layers} layers of width {width}, {experts} experts, {chosen} a token "
        f"({family})"
    )


def _number(value: float | str, config: ModelConfig) -> float | int:
    """A number of a policy; "1.5k" in experts per token, no more than there are."""
    if not isinstance(value, str):
        return value
    times = float(value.removesuffix("k"))
    return max(1, min(round(times * config.experts_per_token), config.num_experts))


# -- files ---------------------------------------------------------------------------


def recipe_names() -> list[str]:
    """The recipes that come with the package."""
    return sorted(p.stem for p in RECIPES.glob("*.toml") if p.stem != SHARED)


def read_recipe(name: str) -> Recipe:
    """A recipe by its name, or the file of one's own.

    Raises:
      ValueError: no such recipe; a file that is none.
    """
    path = Path(name) if name.endswith(".toml") else RECIPES / f"{name}.toml"
    if not path.exists() or name == SHARED:
        known = ", ".join(recipe_names())
        raise ValueError(
            f"the recipe must be one of {known}, or a .toml file, found {name!r}; "
            "`jaxmoe list recipes` says what each draws"
        )
    try:
        return _recipe(path.stem, _toml(path), _toml(RECIPES / f"{SHARED}.toml"))
    except (TypeError, KeyError, ValueError) as error:
        raise ValueError(f"{path}: {error}") from None


def _toml(path: Path) -> dict[str, Any]:
    return tomllib.loads(path.read_text("utf-8"))


def _recipe(name: str, own: dict[str, Any], shared: dict[str, Any]) -> Recipe:
    models = shared["models"] | own.pop("more_models", {})
    benchmarks = shared["benchmarks"] | own.pop("more_benchmarks", {})
    values = own | {
        "name": name,
        "samplers": shared["samplers"] | own.get("samplers", {}),
        "rows": tuple(_made(Row, row) for row in own["rows"]),
        "claims": tuple(
            _made(Claim, {"margin": MARGIN, **claim}) for claim in own.get("claims", ())
        ),
        "figures": tuple(_made(Figure, given) for given in own.get("figures", ())),
        "measures": tuple(own["measures"]),
        "models": {m: models[m] for m in own["models"]},
        "benchmarks": {b: _made(Benchmark, benchmarks[b]) for b in own["benchmarks"]},
    }
    recipe: Recipe = _made(Recipe, values)
    _check(recipe)
    return recipe


def _made(cls: Any, values: Mapping[str, Any]) -> Any:
    """A dataclass from a table, all whose names it must have."""
    known = {item.name: item for item in fields(cls)}
    unknown = [name for name in values if name not in known]
    required = [
        name
        for name, item in known.items()
        if item.default is MISSING and item.default_factory is MISSING
    ]
    missing = [name for name in required if name not in values]
    if unknown or missing:
        said = f"{cls.__name__.lower()} must have {', '.join(required)}"
        found = ", ".join([*unknown, *(f"no {name}" for name in missing)])
        raise ValueError(f"{said} and may have {', '.join(known)}; found {found}")
    return cls(**values)


def _check(recipe: Recipe) -> None:
    """Raises a ValueError for names that stand for nothing."""
    rows = [row.name for row in recipe.rows]
    policies = [row.policy for row in recipe.rows]
    samplers = [row.sampler for row in recipe.rows]
    claimed = [name for claim in recipe.claims for name in (claim.a, claim.b)]
    figured = [figure.row for figure in recipe.figures]
    measured = [recipe.routers] if recipe.routers else []
    _all_known("a row", [*claimed, *figured, *measured], rows)
    _all_known("a policy", policies, POLICIES)
    _all_known("a sampler", samplers, recipe.samplers)
    _all_known("a model", [f.model for f in recipe.figures], recipe.models)
    benchmarks = [figure.benchmark for figure in recipe.figures]
    _all_known("a benchmark", benchmarks, recipe.benchmarks)
    if len(set(rows)) < len(rows):
        raise ValueError(f"expected rows of different names, found {rows}")


def _all_known(what: str, names: Sequence[str], known: Any) -> None:
    if unknown := [name for name in names if name not in known]:
        raise ValueError(
            f"expected {what} among {', '.join(known)}, found {unknown[0]!r}"
        )
