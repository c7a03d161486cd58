"""What of an answer is an answer, and what reasoning before it.

Reasoning models think between marks such as <think> and </think>, or in channels of
their own (the harmony format). Only what follows the last thinking is graded, voted on
and shown to a verifier. Thinking that never closes was cut off, so there is no answer.
"""

import re

_NAME = r"(?:think(?:ing)?|thoughts?|seed:think)"
_OPEN = re.compile(
    rf"<\s{{0,3}}{_NAME}\s{{0,3}}>|\[THINK\]|◁think▷|<\|begin_of_thought\|>"
    r"|<\|START_THINKING\|>|<\|channel>",
    re.IGNORECASE,
)
_CLOSE = re.compile(
    rf"<\s{{0,3}}/\s{{0,3}}{_NAME}\s{{0,3}}>|\[/THINK\]|◁/think▷|<\|end_of_thought\|>"
    r"|<\|END_THINKING\|>|<channel\|>",
    re.IGNORECASE,
)
# Harmony: <|channel|>final<|message|>..., or without its special tokens, which leaves
# their texts glued together: "analysisWe need 7.assistantfinalThe answer is 7." So do
# other programs write it; here the marks stay in (`Family.marks`).
_CHANNEL = re.compile(r"<\|channel\|>\s{0,3}(\w{1,20})(?:.{0,80}?<\|message\|>)?")
_GLUED = re.compile(r"(?:assistant)?(?:analysis|commentary)(?=[^\s:.,;)!?-])")
_GLUED_FINAL = "assistantfinal"
_FINAL_FIRST = re.compile(r"(?:assistant)?final(?=[A-Z0-9\\$*`(#])")
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
    end = 0
    for closed in _CLOSE.finditer(text):
        end = closed.end()
    answer = text[end:]
    return "" if _OPEN.search(answer) else answer


def opens_reasoning(prompt: str) -> bool:
    """Whether a prompt ends within thinking, as templates of some models do.

    Then an answer without a closing mark was cut off: grade `"<think>" + answer`.
    """
    last = max((found.end() for found in _OPEN.finditer(prompt)), default=-1)
    return last >= 0 and not prompt[last:].strip()


def _final_channel(text: str) -> str:
    """The message of the last channel called final."""
    last = None
    for found in _CHANNEL.finditer(text):
        if found[1].lower() == "final":
            last = found.end()
    if last is None:
        return ""
    return _SPECIAL.split(text[last:], maxsplit=1)[0]
