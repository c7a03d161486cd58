"""A model of lm-evaluation-harness, under the name `jaxmoe`.

The harness has no entry points for models of other packages: it knows those that were
registered before its command line runs. This module registers one when it is imported,
and run as a program it is the harness's own command line:

    python -m jaxmoe.evals.lm_eval --model jaxmoe --tasks hellaswag \\
        --model_args checkpoint=demo,policy=expert-sample,tau=0.7

Source: https://github.com/EleutherAI/lm-evaluation-harness, docs/model_guide.md.
"""

import dataclasses
import logging
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

try:
    from lm_eval.__main__ import cli_evaluate
    from lm_eval.api.model import LM
    from lm_eval.api.registry import register_model
    from lm_eval.models.utils import normalize_gen_kwargs
except ModuleNotFoundError as error:
    if (error.name or "").partition(".")[0] != "lm_eval":
        raise
    raise ModuleNotFoundError(
        "jaxmoe.evals.lm_eval needs lm-evaluation-harness, found none; install it with "
        "pip install 'jaxmoe[lm-eval]'",
        name="lm_eval",
    ) from None

from jaxmoe.decode.loglikelihood import loglikelihood, loglikelihood_rolling
from jaxmoe.decode.sampler import TokenSampler
from jaxmoe.decode.score_inputs import encode_pair, encode_text
from jaxmoe.model import Model, load
from jaxmoe.random.keys import as_key, sample_key
from jaxmoe.router.policies import POLICIES, Policy
from jaxmoe.sampling import stream
from jaxmoe.text.chat_template import choose_template

SLOTS = 64
"""Where the harness says 1, its default, or "auto"."""

_log = logging.getLogger(__name__)


def _settable(cls: type) -> list[str]:
    """Fields that a user sets."""
    found = dataclasses.fields(cls)
    return [f.name for f in found if f.init and not f.metadata.get("derived")]


def _policy(name: str, numbers: dict[str, Any]) -> Policy:
    cls = POLICIES.get(name)
    if cls is None:
        raise ValueError(f"policy must be one of {', '.join(POLICIES)}, found {name!r}")
    known = _settable(cls)
    if unknown := [number for number in numbers if number not in known]:
        raise ValueError(
            f"expected checkpoint, policy and numbers of {name} ({', '.join(known)}) "
            f"among --model_args, found {', '.join(unknown)}; see {__name__}.JaxMoE"
        )
    return cls(**numbers)


@register_model("jaxmoe")
class JaxMoE(LM):
    """A jaxmoe checkpoint as the harness asks of it.

    Each result depends on its own request and on `seed`, not on batch sizes, limits or
    other tasks; of equal requests (`repeats`) each gets a sample index of its own.
    """

    def __init__(
        self,
        checkpoint: str = "demo",
        *,
        policy: str = "topk",
        seed: int = 0,
        noisy_prefill: bool = False,
        max_length: int | None = None,
        max_gen_toks: int = 256,
        enable_thinking: bool | None = None,
        dtype: str | None = None,
        weights: Any = None,
        batch_size: int | str | None = None,
        max_batch_size: int | None = None,
        device: str | None = None,
        **numbers: Any,
    ):
        """Loads the checkpoint.

        Args:
          checkpoint: what `jaxmoe.load` takes; "demo" and "demo-tries" are bundled.
          policy: a name of `jaxmoe list policies`. numbers: its numbers, such as tau.
          seed: of the noise of policies and of sampled tokens.
          noisy_prefill: route contexts with noise too. Without it the answer of one
            token to a multiple-choice question sees no noise.
          max_length: tokens that are looked at at once; None for the model's context.
            Longer contexts lose their beginning, as the harness has it.
          max_gen_toks: tokens of an answer, where a task does not say.
          enable_thinking: for chat templates that know it.
          dtype, weights: as of `jaxmoe.load`.
          batch_size: contexts or answers side by side; 64 where it is 1, the harness's
            default, or "auto".
          max_batch_size, device: of no effect. The harness passes "cuda:0" whatever
            there is; JAX_PLATFORMS chooses the device.

        Raises:
          ValueError: an unknown policy or number.
        """
        super().__init__()
        del max_batch_size, device
        self._policy = _policy(policy, numbers)
        self.model: Model = load(checkpoint, dtype=dtype, weights=weights)
        self._name = str(checkpoint)
        self._key = as_key(seed)
        self._noisy_prefill = noisy_prefill
        context = self.model.config.context_length
        self.max_length = min(context, max_length or context)
        self.max_gen_toks = max_gen_toks
        self._enable_thinking = enable_thinking
        self._template: str | None = None
        given = 1 if batch_size is None or batch_size == "auto" else int(batch_size)
        self.batch_size = given if given > 1 else SLOTS

    # -- likelihoods ---------------------------------------------------------------

    @property
    def _scoring(self) -> dict[str, Any]:
        return {
            "policy": self._policy,
            "key": sample_key(self._key, 0),
            "batch": self.batch_size,
            "noisy_prefill": self._noisy_prefill,
        }

    def loglikelihood(self, requests: Sequence[Any]) -> list[tuple[float, bool]]:
        """(log-probability, whether greedy decoding gives it) of each continuation."""
        pairs = [self._cut(*request.args) for request in requests]
        found = loglikelihood(self.model, pairs, **self._scoring)
        return [(one.sum, one.is_greedy) for one in found]

    def _cut(self, context: str, continuation: str) -> tuple[np.ndarray, np.ndarray]:
        """Token ids, without the beginning of a context that is too long."""
        before, after = encode_pair(self.model, context, continuation)
        room = self.max_length + 1 - len(after)
        return (before if room < 1 else self._last(before, room)), after

    def loglikelihood_rolling(self, requests: Sequence[Any]) -> list[float]:
        """Log-probability of each text, in windows of `max_length`."""
        texts = [request.args[0] for request in requests]
        found = loglikelihood_rolling(
            self.model, texts, max_length=self.max_length, **self._scoring
        )
        return [one.sum for one in found]

    # -- answers -------------------------------------------------------------------

    def generate_until(self, requests: Sequence[Any]) -> list[str]:
        """An answer to each context, up to the first of its `until` strings."""
        answers: dict[int, str] = {}
        groups: dict[str, list[int]] = {}
        for index, request in enumerate(requests):
            options = dict(sorted(request.args[1].items()))
            groups.setdefault(repr(options), []).append(index)
        for group in groups.values():
            contexts = [requests[index].args[0] for index in group]
            texts = self._answers(contexts, requests[group[0]].args[1])
            answers.update(zip(group, texts, strict=True))
        return [answers[index] for index in range(len(requests))]

    def _answers(self, contexts: list[str], options: dict[str, Any]) -> list[str]:
        asked: dict[str, Any] = dict(normalize_gen_kwargs(options, self.max_gen_toks))
        until, most = asked.pop("until", []), asked.pop("max_gen_toks")
        sampler = self._sampler(asked)
        if most >= self.max_length:
            raise ValueError(
                f"max_gen_toks must be less than the model's context of "
                f"{self.max_length} tokens, found {most}; pass --gen_kwargs "
                "max_gen_toks=N"
            )
        counts = Counter(contexts)
        distinct = list(counts)
        prompts = [
            self._last(encode_text(self.model, context), self.max_length - most)
            for context in distinct
        ]
        repeats = max(counts.values())
        texts: dict[tuple[str, int], str] = {}
        for done in stream(
            self.model,
            prompts,
            key=[self._key] * len(prompts),
            n=repeats,
            skip={
                (j, i)
                for j, context in enumerate(distinct)
                for i in range(counts[context], repeats)
            },
            policy=self._policy,
            sampler=sampler,
            max_new_tokens=most,
            stop=[each for each in until if each],
            noisy_prefill=self._noisy_prefill,
            slots=self.batch_size,
        ):
            texts[distinct[done.prompt], done.sample] = done.text or ""
        seen: dict[str, int] = {}
        found = []
        for context in contexts:
            found.append(texts[context, seen.setdefault(context, 0)])
            seen[context] += 1
        return found

    def _sampler(self, asked: dict[str, Any]) -> TokenSampler:
        """What the rest of a request's options say; greedy without `do_sample`."""
        sampled = asked.pop("do_sample", False)
        known = _settable(TokenSampler)
        if unknown := [name for name in asked if name not in known]:
            raise ValueError(
                "expected until, max_gen_toks, do_sample and "
                f"{', '.join(known)} of a task's generation_kwargs, found "
                f"{', '.join(unknown)}; leave them out of it or of --gen_kwargs"
            )
        if not sampled:
            return TokenSampler(0.0)
        own = TokenSampler.from_config(self.model.config.generation)
        return dataclasses.replace(own, **asked)

    # -- chats ---------------------------------------------------------------------

    @property
    def tokenizer_name(self) -> str:
        """Names the harness's caches of requests."""
        return self._name.replace("/", "__")

    def chat_template(self, chat_template: bool | str = False) -> str | None:
        """Source of the template asked for, which `apply_chat_template` then uses."""
        if not chat_template:
            return None
        tokenizer = self.model.require_tokenizer("a chat template")
        self._template = chat_template if isinstance(chat_template, str) else None
        return choose_template(tokenizer.chat_templates, self._template, tools=False)

    def apply_chat_template(
        self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True
    ) -> str:
        """A chat as text; without a generation prompt its last message goes on."""
        tokenizer = self.model.require_tokenizer("a chat template")
        return tokenizer.render_chat(
            chat_history,
            add_generation_prompt=add_generation_prompt,
            continue_final_message=not add_generation_prompt,
            enable_thinking=self._enable_thinking,
            chat_template=self._template,
        )

    def _last(self, ids: np.ndarray, room: int) -> np.ndarray:
        if len(ids) > room:
            _log.warning("a context of %d tokens is cut to its last %d", len(ids), room)
        return ids[-room:]


if __name__ == "__main__":
    cli_evaluate()
