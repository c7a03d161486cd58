r"""Reading the letter of a choice out of an answer, by two rules.

strict: the form that the prompt asks for. The last place that has "Answer: X" (any
case and dressing, the word in many languages, JSON and <answer>X</answer> too; on the
next line where that holds nothing else) or
\boxed{X} with the letter X of one choice. Of boxes the last one that holds a letter
counts, together with those joined to it by a comma or "and".

flexible: the strict rule's letter. Where there is none, the first of these that finds
one: the last "the answer is X", "option X is correct", "I choose X" and their like;
the text of just one choice as the whole of the last box, of the last line, or of what
follows "answer is" in it; a last line that is a letter, or ends with one after a word
such as "hence"; the one letter in parentheses in the last line.

A place that names several letters, "Answer: B or C", is ambiguous, and where it comes
last no rule goes on to read one of them.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from string import ascii_uppercase

from jaxmoe.evals.tasks.extract import (
    final_box_spans,
    final_boxes,
    last_line,
    normalised,
)
from jaxmoe.evals.tasks.letter_rules import LetterRules, letter_rules
from jaxmoe.evals.tasks.peel import ascii_digits, plain
from jaxmoe.evals.tasks.reasoning import answer_in

# Small letters alone: "<B>" is a choice.
_HTML = re.compile(r"</?(?:b|strong|i|em|u|p|div|span|code|mark)>")
_SIGNS = re.compile("[✅✓✔☑\u200b\u200c\u200d\ufeff\ufe0f]")
# What stands before "A is correct" where that is not what is said.
_NOT = (
    r"(?:\b(?:not|never|hardly|cannot)|n['’]t)\s"
    r"(?:(?:really|actually|even|just|be|have|going|want|to)\s){0,3}"
)
# A "not" takes back what its own clause says: "not hard to see that" does not.
_UNSAID = re.compile(
    rf"(?:{_NOT}"
    r"(?:(?:[a-z]{2,12}ly\s|quite\s|yet\s|at\sall\s)?(?:think|believe|say"
    r"|claim|mean|feel|agree|suppose|conclude|imply|follow|know|see|understand|sure|certain|convinced|clear|true|obvious|likely|possible"
    r"|plausible|right|necessarily|the\scase)\s)?(?:(?:that|if|whether|how|why)\s)?"
    r"|(?<!\bno\s)(?<!\bnot\s)(?<!n['’]t\s)(?<!\bany\s)(?<!\ba\s)(?<!little\s)"
    r"(?<!without\s)(?<!beyond\s)\b(?:doubt|doubtful)\s(?:(?:that|if|whether)\s)?"
    r"|\b(?:unlikely|impossible|implausible|false|untrue|wrong)\s(?:to\ssay\s)?that\s"
    r"|\b(?:if|whether|suppose|assume|assuming|unless)\s(?:that\s)?"
    r"|\bneither\s(?:option\s|choice\s)?\(?[a-z]\)?\s(?:n?or)\s)"
    r"(?:the\s|an?\s)?(?:(?:correct|right|best)\s)?\(?$",
    re.IGNORECASE,
)
_BEFORE = 60
"""Characters before a phrase that may take it back, or name another letter."""
_REJECTED = re.compile(
    r"[,(]?\s{0,3}\b(?:and\s)?(?:not|rather than|instead of)\s(?:option\s|choice\s)?"
    r"\(?[A-Z]\b\)?",
    re.IGNORECASE,
)
"""What is named beside a choice only as not chosen: "B, not A"."""
# Of the letter that \0 stands for. A negation elsewhere may belong to the question:
# "the one that does not react is (C)", "statement (C) is not true".
_NEGATED = re.compile(
    r"(?:(?:\b(?:not|never|cannot|neither|hardly|no longer)\b|n['’]t\b)\s"
    r"(?:[a-z]{2,12}ly\s|quite\s|even\s|just\s|at all\s)?"
    r"(?:(?:can|could|would|will|should|must)\s)?"
    r"(?:(?:be|choose|select|pick|go with|equal|equal to|have|want|mean)\s"
    r"|(?:think|believe|say|claim|suppose|feel|agree|clear|true|sure|certain|likely"
    r"|possible|conclude|mean)\s(?:that\s|whether\s|if\s)?"
    r"(?:(?:it|this|that)(?:['’]s|\s(?:is|was|must be|should be|would be))\s)?)?"
    r"(?:the\s)?(?:(?:correct|right|best|final)\s)?"
    r"(?:(?:answer|option|choice)\s(?:(?:is|was|must be|should be|would be)\s)?)?"
    r"|\brul(?:e|es|ed|ing) out\s(?:option\s|choice\s)?)[*_$(\[\"'`]{0,4}\0"
    r"|\0[*_$)\]\"'`]{0,4}\s(?:(?:is|was)\snot|(?:is|was)n['’]t|cannot\sbe)\s"
    r"(?:the\s)?(?:(?:correct|right|best)\s)?(?:answer|option|choice)\b"
    r"|(?:^|[.,;:]\s|\b(?:answer|option|choice)\s)[*_$(\[\"'`]{0,4}\0"
    r"[*_$)\]\"'`]{0,4}\s(?:(?:is|was)\snot|(?:is|was)n['’]t)\s(?:correct|right)\b",
    re.IGNORECASE,
)
"""What takes a letter back, right before it or behind: "not the answer A"."""
_QUOTES = str.maketrans({"“": '"', "”": '"', "„": '"', "«": '"', "»": '"', "「": '"'})


@dataclass(frozen=True)
class Reading:
    """What a rule found: the place of the choice from 0, or that several are named."""

    place: int | None = None
    ambiguous: bool = False


def strict_choice(text: str, count: int) -> int | None:
    """The place, from 0, of the choice that the strict rule reads; None for none.

    Args:
      count: choices shown; later letters are none.
    """
    return _strict(_prepared(text), letter_rules(count)).place


def flexible_choice(text: str, choices: Sequence[str]) -> int | None:
    """The place, from 0, of the choice that the flexible rule reads.

    Args:
      choices: texts in the order shown.
    """
    rules, text = letter_rules(len(choices)), _prepared(text)
    said = _last(rules.phrases, text, rules, _is_said, labelled=True)
    for found in (_strict(text, rules), said):
        if found.place is not None or found.ambiguous:
            return found.place
    line = last_line(text)
    boxes = final_boxes(text)
    box = boxes[0] if len(boxes) == 1 else ""
    for part in (box, line, rules.before_text.sub("", line)):
        same = _same_text(part, choices)
        if same is not None:
            return same
    return _ending(line, rules)


def _prepared(text: str) -> str:
    """The answer alone, with ASCII digits, letters and quotes, and without HTML."""
    text = _HTML.sub("", ascii_digits(answer_in(text)).replace("&nbsp;", " "))
    text = _SIGNS.sub("", text)
    return re.sub(r"(?<!\\)\\[()\[\]]", "$", text.translate(_QUOTES))


def _strict(text: str, rules: LetterRules) -> Reading:
    found = _last(rules.answer, text, rules)
    matches = rules.answer.finditer(text)
    place = max((m.start() for m in matches if _stands(m, rules)), default=-1)

    def no_letter(content: str) -> bool:
        shown = plain(content)
        letters = rules.box.fullmatch(shown) or rules.box_several.fullmatch(shown)
        return not letters

    spans = final_box_spans(text, no_letter)
    boxes = [text[slice(*span)].strip() for span in spans]
    if not boxes or all(map(no_letter, boxes)) or spans[-1][0] < place:
        return found
    read = [rules.box.fullmatch(plain(box)) for box in boxes]
    letters = {found["letter"].upper() for found in read if found}
    several = any(
        found and rules.several.match(found.string, found.end("letter"))
        for found in read
    )
    if len(letters) == 1 and all(read) and not several:
        return Reading(_place(letters.pop()))
    return Reading(ambiguous=True)


def _is_said(found: re.Match[str]) -> bool:
    """Whether a phrase stands for itself: not "I do not think A is correct"."""
    start = found.start()
    return not _UNSAID.search(found.string[max(start - _BEFORE, 0) : start])


def _last(
    pattern: re.Pattern[str],
    text: str,
    rules: LetterRules,
    counts: Callable[[re.Match[str]], bool] = bool,
    *,
    labelled: bool = False,
) -> Reading:
    """What the last match that counts says; several where more letters follow it.

    labelled: see `_stands`.
    """
    last = None
    for found in pattern.finditer(text):
        if counts(found) and _stands(found, rules, labelled=labelled):
            last = found
    if last is None:
        return Reading()
    if rules.several.match(text, last.end()) or _joined_before(last, rules):
        return Reading(ambiguous=True)
    return Reading(_place(last["letter"]))


def _joined_before(found: re.Match[str], rules: LetterRules) -> bool:
    """Whether another letter is named together with this: "A or B is correct".

    "Option A and option B is" names both, "we rule out A and option B is" does not.
    """
    start = found.start("letter")
    before = found.string[max(start - _BEFORE, 0) : start]
    joined = rules.joined.search(before)
    if joined is None or rules.eliminated.search(before):
        return False
    if found["letter"] in (joined["list"] or ""):  # "of A, B, C, B is correct"
        return False
    return not (joined["and"] and joined["own"] and not joined["noun"])


def _stands(
    found: re.Match[str], rules: LetterRules, *, labelled: bool = False
) -> bool:
    """Whether a letter below "Answer:" is the answer, and no list or sentence begins.

    It is all that its line holds, and the next line opens no other choice.

    Args:
      labelled: the choice's text may stand behind it: "B) Paris".
    """
    text, end = found.string, found.end()
    if "\n" not in text[found.start() : found.start("letter")]:
        return True
    if rules.several.match(text, end):
        return True  # which is ambiguous
    line = rules.alone.match(text, end)
    line = line or (rules.labelled.match(text, end) if labelled else None)
    if line is None:
        return False
    below = rules.label.match(text, line.end())
    return below is None or below["label"] == found["letter"].upper()


def _ending(line: str, rules: LetterRules) -> int | None:
    """The letter that a last line comes to, where it names no other."""
    if found := rules.concluded.search(line):
        return _place(found["letter"])
    chosen = _REJECTED.sub("", line)
    line = chosen if rules.mentioned.search(chosen) else line
    named = set(rules.mentioned.findall(line))
    found = rules.ending.search(line)
    if found and len(named) <= 1:
        group = "letter" if found["letter"] else "only"
        return None if _negated(found, group) else _place(found[group])
    bracketed = list(rules.parentheses.finditer(line))
    letters = {found[1] for found in bracketed}
    if len(letters) == 1 and named <= letters:
        return None if any(map(_negated, bracketed)) else _place(letters.pop())
    return None


def _negated(found: re.Match[str], group: str | int = 1) -> bool:
    """Whether what stands right before or behind a letter takes it back."""
    text, (start, end) = found.string, found.span(group)
    before, behind = text[max(start - _BEFORE, 0) : start], text[end : end + _BEFORE]
    return bool(_NEGATED.search(f"{before}\0{behind}"))


def _place(letter: str) -> int:
    return ascii_uppercase.index(letter.upper())


def _same_text(text: str, choices: Sequence[str]) -> int | None:
    """The one choice whose text this is, with its letter before it or without."""
    wanted = _key(text)
    if not wanted or (len(wanted) == 1 and wanted.isalpha()):  # for other rules
        return None
    same = [
        place
        for place, (letter, choice) in enumerate(
            zip(ascii_uppercase, choices, strict=False)
        )
        for form in ("{1}", "{0}) {1}", "({0}) {1}", "{0}. {1}", "{0}: {1}")
        if _key(form.format(letter, choice)) == wanted
    ]
    return same[0] if len(same) == 1 else None


def _key(text: str) -> str:
    """What texts of choices are compared by: without blanks and braces."""
    return re.sub(r"[{}\s]", "", normalised(plain(text).strip("\"'")))
