"""One drawn and graded answer, as a line of JSON."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from jaxmoe.files import parse_json


@dataclass(frozen=True)
class Record:
    """Sample `sample` of problem `problem`, and what became of it.

    problem: the question's id. sample: its index i. key: seed, the problem's index j in
    its file, and i: the answer was drawn with fold_in(fold_in(key(seed), j), i).
    tokens: ids, the stop token included; None where they were not kept. text: decoded,
    without the stop. finish: "stop", "length", or "stop_when" where DeepConf ended it.
    answer, correct, details: the task's `Grade`. length: tokens. logprob_sum,
    logprob_mean: of the tokens under the model's own distribution, nats; None where not
    finite. self_certainty: mean over tokens of KL(uniform || model), nats (Kang et al.
    2025, arXiv 2502.18581); None where not asked for. confidence: of its lowest group
    of tokens, nats (Fu et al. 2025, arXiv 2508.15260, `jaxmoe.evals.deep_conf`);
    likewise. routes: "TxLxK:" and base64 of the zlib of little-endian int16
    [length, L, K] in C order (`jaxmoe.evals.run.pack_routes`); None where not asked
    for.
    """

    problem: str
    sample: int
    key: tuple[int, int, int]
    text: str
    finish: str
    answer: str | None
    correct: bool
    length: int
    logprob_sum: float | None
    logprob_mean: float | None
    details: Mapping[str, Any] = field(default_factory=dict)
    self_certainty: float | None = None
    confidence: float | None = None
    tokens: tuple[int, ...] | None = None
    routes: str | None = None

    def line(self) -> str:
        """The record as one line of JSON, newline included."""
        values = {item.name: getattr(self, item.name) for item in fields(self)}
        values["details"] = dict(self.details)
        return json.dumps(values, ensure_ascii=False, allow_nan=False) + "\n"

    @classmethod
    def parse(cls, line: str) -> "Record":
        """The record of a line.

        Raises:
          ValueError: text that is no JSON object, or fields missing or unknown.
        """
        values = parse_json(line)
        names = {item.name for item in fields(cls)}
        if isinstance(values, dict):
            values.setdefault("confidence", None)  # which earlier versions had not
        if not isinstance(values, dict) or values.keys() != names:
            found = sorted(values) if isinstance(values, dict) else type(values)
            raise ValueError(
                f"expected a record with {', '.join(sorted(names))}, found {found}; "
                "the file is not of a run, or of one by another version"
            )
        values["key"] = tuple(values["key"])
        if values["tokens"] is not None:
            values["tokens"] = tuple(values["tokens"])
        return cls(**values)
