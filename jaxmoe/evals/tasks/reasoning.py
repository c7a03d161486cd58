"""What of an answer is an answer, and what reasoning before it.

Reasoning models think between marks such as <think> and </think>, or in channels of
their own (the harmony format). Only what follows the last thinking is graded, voted on
and shown to a verifier. Thinking that never closes was cut off, so there is no answer.
"""

import re
from collections.abc import Iterator

# A closed list: "<user_thoughts>" is a name that an answer may speak of.
_NAME = r"(?:(?:seed:|longcat_)?think(?:ing)?|thoughts?)(?:\s\w{1,20}=[^<>]{0,80})?"
_OPEN = re.compile(
    rf"<\s{{0,3}}{_NAME}\s{{0,3}}>|\[THINK\]|◁think▷|<\|(?:begin_of_thought|think)\|>"
    r"|<\|START_THINKING\|>|<\|inner_prefix\|>|<\|channel>(?:thought)?",
    re.IGNORECASE,
)
_CLOSE = re.compile(
    rf"<\s{{0,3}}/\s{{0,3}}{_NAME}\s{{0,3}}>|\[/THINK\]|◁/think▷"
    r"|<\|(?:end_of_thought|/think)\|>|<\|END_THINKING\|>|<\|inner_suffix\|>|<channel\|>",
    re.IGNORECASE,
)
# Names that an answer's own parts may have as well: reasoning where they come first, or
# where one is closed that the prompt has opened.
_OPEN_FIRST = re.compile(
    r"<(?P<name>reasoning|reason|scratchpad|analysis)>|<start_working_out>",
    re.IGNORECASE,
)
_CLOSE_FIRST = re.compile(
    r"</(?:reasoning|reason|scratchpad|analysis)>|<end_working_out>", re.IGNORECASE
)
# Harmony: <|channel|>final<|message|>..., or without its special tokens, which leaves
# their texts glued together: "analysisWe need 7.assistantfinalThe answer is 7." So do
# other programs write it; here the marks stay in (`Family.marks`).
_CHANNEL = re.compile(r"<\|channel\|>\s{0,3}(\w{1,20})(?:.{0,80}?<\|message\|>)?")
_GLUED = re.compile(r"(?:assistant)?(?:analysis|commentary)(?=[^\s:.,;)!?-])")
_GLUED_FINAL = "assistantfinal"
_FINAL_FIRST = re.compile(r"(?:assistant)?final(?=[A-Z0-9\\$*`(#])")
_FENCE = "```"
_QUOTED = ('""', "''", "``")
_SPECIAL = re.compile(r"<\|(?:end|return|start|call|channel)\|>")


def answer_in(text: str) -> str:
    r"""What follows the reasoning, "" for nothing; all of it where there is none.

    >>> answer_in("<think>7?</think>The answer is 8.")
    'The answer is 8.'
    """
    if "<|channel|>" in text:
        return _final_channel(text)
    if _GLUED.match(text):
        _, found, answer = text.rpartition(_GLUED_FINAL)
        return answer if found else ""
    text = text[found.end() :] if (found := _FINAL_FIRST.match(text)) else text
    answer = _after_last(_CLOSE, text)
    return "" if any(_marks(_OPEN, answer)) else _without_first(answer)


def opens_reasoning(prompt: str) -> bool:
    """Whether a prompt ends within thinking, as templates of some models do.

    Then an answer without a closing mark was cut off: grade `"<think>" + answer`.
    """
    last = max((found.end() for found in _marks(_OPEN, prompt)), default=-1)
    if channel := _CHANNEL.search(prompt, prompt.rfind("<|channel|>")):
        inside = channel[1].lower() != "final"
        return inside and not prompt[channel.end() :].strip()
    return last >= 0 and not prompt[last:].strip()


def _marks(pattern: re.Pattern[str], text: str) -> Iterator[re.Match[str]]:
    """The marks in a text: not `"<think>"`, which speaks of one."""
    for found in pattern.finditer(text):
        start, end = found.span()
        around = text[max(start - 1, 0) : start] + text[end : end + 1]
        if around not in _QUOTED:
            yield found


def _after_last(closed: re.Pattern[str], text: str) -> str:
    end = max((found.end() for found in _marks(closed, text)), default=0)
    return text[end:]


def _ends_outside_blocks(pattern: re.Pattern[str], text: str) -> Iterator[int]:
    """Where marks end that stand in no fenced block, as a program's own do."""
    fences = counted = 0
    for found in _marks(pattern, text):
        fences += text.count(_FENCE, counted, found.start())
        counted = found.start()
        if fences % 2 == 0:
            yield found.end()


def _without_first(text: str) -> str:
    """Without reasoning under a name that other parts of an answer may have too."""
    if _OPEN_FIRST.match(text.lstrip()):
        answer = _after_last(_CLOSE_FIRST, text)
        return "" if answer == text else answer
    if any(_marks(_OPEN_FIRST, text)):
        return text
    return text[max(_ends_outside_blocks(_CLOSE_FIRST, text), default=0) :]


def _final_channel(text: str) -> str:
    """The message of the last channel called final."""
    last = None
    for found in _CHANNEL.finditer(text):
        if found[1].lower() == "final":
            last = found.end()
    if last is None:
        return ""
    return _SPECIAL.split(text[last:], maxsplit=1)[0]
