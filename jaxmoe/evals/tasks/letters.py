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

import functools
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from string import ascii_uppercase

from jaxmoe.evals.tasks.answer_words import (
    ARTICLE,
    BE,
    BEFORE_NOUN,
    COMPARED,
    DENIED,
    OR_AND,
    OTHER,
    RIGHT_BEHIND,
    SENTENCE_ENDS,
    TAKEN,
    TAKEN_BACK,
)
from jaxmoe.evals.tasks.extract import (
    final_box_spans,
    final_boxes,
    last_line,
    normalised,
)
from jaxmoe.evals.tasks.peel import ascii_digits, plain
from jaxmoe.evals.tasks.reasoning import answer_in

_SOFT = r"[*_\"'`\s]{0,4}"


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
    r"(?:(?:[a-z]{2,12}ly\s|quite\s|yet\s|at\sall\s)?(?:think|believe|say|claim|mean|feel|agree|suppose|conclude|imply|follow|know"
    r"|see|understand|sure|certain|convinced|clear|true|obvious|likely|possible"
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
_ELIMINATED = (
    r"\b(?:rul(?:e|es|ed|ing)\sout|(?:exclud|eliminat)(?:e|es|ed|ing)"
    r"|(?:reject|dismiss|discard)(?:s|ed|ing)?|unlike|except(?:\sfor)?)\s"
    r"(?:both\s)?(?:(?:option|choice)s?\s)?"
)
"""What takes the letters behind it out: no others are named together with them."""
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
    return _strict(_prepared(text), _rules(count)).place


def flexible_choice(text: str, choices: Sequence[str]) -> int | None:
    """The place, from 0, of the choice that the flexible rule reads.

    Args:
      choices: texts in the order shown.
    """
    rules, text = _rules(len(choices)), _prepared(text)
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


@dataclass(frozen=True)
class _Rules:
    """Patterns for so many choices; the group `letter` is the one chosen.

    Every repetition in them is bounded, so a search takes linear time.
    """

    answer: re.Pattern[str]
    phrases: re.Pattern[str]
    box: re.Pattern[str]
    box_several: re.Pattern[str]
    several: re.Pattern[str]
    joined: re.Pattern[str]
    eliminated: re.Pattern[str]
    alone: re.Pattern[str]
    labelled: re.Pattern[str]
    label: re.Pattern[str]
    concluded: re.Pattern[str]
    ending: re.Pattern[str]
    mentioned: re.Pattern[str]
    parentheses: re.Pattern[str]
    before_text: re.Pattern[str]


def _announced(upper: str) -> tuple[str, str]:
    """What says that the answer follows.

    Returns:
      "Answer:", "答案：" or "<answer>", behind which a sentence may begin; and "la
      respuesta es", "应选", behind which only the choice can.
    """
    below = r"(?:[*_ \t\r]{0,4}\n[ \t\r]{0,4}(?:\n[ \t\r]{0,4})?)?"
    other = rf"{OTHER}{_SOFT}"
    colon = (
        rf"(?:(?<![A-Za-z])(?i:answer){_SOFT}:"
        rf"|{other}(?:{BE}\s?)?:\s{{0,3}}{_SOFT}{ARTICLE}"
        rf"|【{OTHER}】|(?i:<(?:final_)?answer>)\s{{0,3}}){below}"
    )
    verb = (
        rf"(?:{other}(?:{BE}\s|{BE}(?=[^\w\s]|[{upper}选選]))\s{{0,3}}{_SOFT}{ARTICLE}"
        rf"|{TAKEN}\s?:?\s?(?!\W{{0,4}}[{upper}]{TAKEN_BACK})){below}"
    )
    return colon, verb


def _several(upper: str) -> re.Pattern[str]:
    """What makes a letter one of several that are named: "or B", ", B"."""
    also = r"(?:\b(?i:or|and|maybe|possibly|perhaps|also|even|both|option|choice)\b"
    return re.compile(
        rf"[)*.\s$}}\"'\]>】]{{0,4}}(?:[,/&;|+、،]|{OR_AND})"
        rf"[\s(*$\[<【]{{0,4}}(?:\\[a-z]{{2,12}}\{{)?{also}[\s(*\[<【]{{0,3}}){{0,3}}"
        rf"\(?[{upper}](?![A-Za-z0-9_]|{COMPARED})(?!\s{{1,3}}(?!{OR_AND})[a-z])"
        rf"|\s{{0,2}}\(\s?(?:or|and)\s{{1,2}}\(?[{upper}]\b"
        rf"|\"\s?,\s?\"[{upper}]\"\s?[],]"
    )


@functools.lru_cache
def _rules(count: int) -> _Rules:
    upper = f"A-{ascii_uppercase[count - 1]}"
    lower = upper.lower()
    # A small letter only where a bracket or the line's end follows: "a" is a word too.
    alone = r"(?=[)\]}\"'*<]|[ \t\r.]{0,4}(?:\n|$))"
    # Behind a letter no word may go on.
    letter = rf"(?P<letter>[{upper}]|[{lower}]{alone})(?!{DENIED}|[A-Za-zÀ-ɏ0-9‐‑-]"
    letter += r"|_[^\W_]|['’]\w)"
    bare = f"(?P<letter>[{upper}])"

    colon, other = _announced(upper)
    verb = r"(?:is|was|would be|must be|should be)\b"
    sure = r"(?:\s{1,3}(?:(?:most\s)?likely|probably|clearly|simply|indeed|thus))?"
    noun = rf"\b(?i:(?:answer|option|choice)\s{{1,3}}{verb}{sure}):?"
    opening = r"[*_$\"'`(\[{<【（→⇒ \t]{0,8}(?:\\[a-z]{2,12}\s?\{?[( \t$*]{0,2}){0,3}"
    kind = r"(?:(?i:option|choice|letter)[ \t]{1,3}\(?)?"
    # After a colon a sentence may begin: "A circle", "I think". After "the answer is",
    # "A because ..." can only mean the choice, and so before another script.
    joins = rf"(?:or|and)\b|{OR_AND}\s{{1,3}}[*(]{{0,3}}[{upper}](?![^\W_])"
    sentence, thought = (
        rf"(?!{word}[ \t]{{1,20}}(?!{joins})[0-9A-Za-z_À-ɏḀ-ỿ])"
        for word in ("[AI]", "I")
    )
    right = (
        r"(?i:(?:is|must be)\s{1,3}(?:(?:most\slikely\s)?(?:the\s{1,3})?"
        r"(?:correct|right|best)\b"
        r"|(?:the\s{1,3}(?:most\s(?:appropriate|likely|accurate|suitable|plausible)\s"
        r"(?:answer|option|choice)|answer)"
        r"(?=[*_]{0,3}(?:[.,;!]|\s{0,3}(?:\n|$)|\s(?:because|since|as|here"
        r"|(?:to|for|in)\s(?:the|this)\s(?:question|problem))\b)))))"
    )
    chosen = r"\b(?i:choose|chose|select|pick|go with|going with|choice|option)"
    last = rf"[*_$(\[\"'`]{{0,4}}{bare}[*_$)\].\"'`]{{0,6}}$"
    closing = r"[)\]}*_$\"'`. \t\r]{0,6}"
    ends = rf"(?={closing}(?:\n|$))"
    # Without a verb or a colon only a sentence that says no more.
    dash = r"\s{0,2}[-–—=]?\s{0,2}"
    behind = rf"[*_)]{{0,4}}\s?(?:{BE}\s)?[*_]{{0,3}}{RIGHT_BEHIND}{SENTENCE_ENDS}"
    alone_other = (
        rf"(?:(?m:^)|(?<=[.!।]\s)|(?<=。))[*_#> \t]{{0,6}}{BEFORE_NOUN}{OTHER}"
        rf"(?:{dash}{opening}(?=\S{{1,12}}{closing}\s{{0,9}}\Z)"
        rf"|\s{opening}(?=[{upper}]{behind}))"
    )
    return _Rules(
        answer=re.compile(
            f"(?:{colon}{opening}{sentence}|{other}{opening}{thought}){kind}{letter}"
        ),
        phrases=re.compile(
            rf"(?:{colon}\s{{0,3}}{opening}{sentence}{kind}"
            rf"|{other}\s{{0,3}}{opening}{thought}{kind}"
            rf"|{noun}\s{{0,3}}{opening}{thought}{kind}"
            rf"|{chosen}\s?:?\s{{0,2}}{opening}{thought}{kind}(?=\S{{1,12}}{ends})"
            rf"|\b(?i:not)\s\(?[{upper}]\)?,?\s(?i:but)\s(?=\S{{1,12}}{ends})"
            rf"|\b(?i:answer){dash}{opening}(?=\S{{1,12}}{ends})|{alone_other}"
            rf"|(?<![\w'’])\(?(?=[{upper}]\)?\*{{0,2}}\s{{1,3}}{right})"
            rf"|\b(?i:option|choice)\s{{1,3}}\(?(?=[{upper}]\)?\s{{1,3}}{right})"
            rf"|(?:选项|選項)\s?(?=[{upper}]\s?(?:是|为)?(?:正确|正確|对的))"
            rf"){letter}"
        ),
        box=re.compile(
            r"(?:(?i:option|choice|answer|final answer|the answer is)\b)?:?\s?[(\[]?\s?"
            rf"(?P<letter>[{upper}{lower}])\s?(?:[)\].:].*)?",
            re.DOTALL,
        ),
        box_several=re.compile(
            rf"\(?[{upper}]\)?(?:(?:[\s,/&;|+]|\\?\b(?:or|and)\b){{0,9}}\(?[{upper}]\)?)"
            r"{1,25}"
        ),
        several=_several(upper),
        joined=re.compile(
            rf"(?<!\w)(?:(?P<noun>(?i:option|choice)\s)?\(?[{upper}]\)?\*{{0,2}}\s?"
            rf"(?:[/&]|\bor\b|(?P<and>\band\b))"
            rf"|(?P<list>(?:\(?[{upper}]\)?,\s?){{2,25}})(?:\b(?:and|or)\b)?)"
            r"\s?\(?\*{0,2}(?P<own>(?i:option|choice)\s)?\(?\*{0,2}$"
        ),
        eliminated=re.compile(
            rf"(?i:{_ELIMINATED})(?:\(?[{upper}]\)?(?:,\s?|,?\s(?:and|or)\s)){{1,6}}"
            r"(?:(?i:option|choice)\s)?\(?\*{0,2}$"
        ),
        alone=re.compile(
            r"[)\]}>】*_$\"'`.,;! \t\r]{0,8}(?:</[a-z_]{1,12}>[ \t\r]{0,4})?(?:\n|\Z)"
        ),
        labelled=re.compile(r"[*_]{0,3}[).:\]][^\n]{0,1000}(?:\n\s{0,4}|\Z)"),
        label=re.compile(
            rf"[ \t]{{0,4}}[-*_(\[]{{0,4}}[ \t]{{0,2}}(?P<label>[{upper}])"
            r"(?:[*_]{0,2}[).:\]]|[*_ \t\r]{0,4}(?:\n|\Z))"
        ),
        concluded=re.compile(
            rf"\b(?i:hence|thus|therefore|so|conclude|leaves)[\s:,]{{1,3}}{last}"
        ),
        ending=re.compile(
            r"(?:(?:\b(?i:it is|it's|it must be|option|choice"
            r"|answer|go with|choose|select|pick)|[:,=→⇒-]>?)[\s:,]{1,3}|=>\s?)"
            rf"{last}"
            rf"|^(?:\\[a-z]{{2,12}}\s?\{{|[*_$(\[\"'`#\s]){{0,4}}(?P<only>[{upper}{lower}])"
            r"[*_$)\].}\"'`\s]{0,6}$"
        ),
        mentioned=re.compile(
            rf"(?<![\w'’\\])(?:(?!A\s{{1,3}}[a-z])[{upper}])(?![\w'’‐‑-])"
        ),
        parentheses=re.compile(rf"\(([{upper}])\)"),
        before_text=re.compile(f"^.*?(?:{colon}|{other}|{noun})"),
    )


def _prepared(text: str) -> str:
    """The answer alone, with ASCII digits, letters and quotes, and without HTML."""
    text = _HTML.sub("", ascii_digits(answer_in(text)).replace("&nbsp;", " "))
    text = _SIGNS.sub("", text)
    return re.sub(r"(?<!\\)\\[()\[\]]", "$", text.translate(_QUOTES))


def _strict(text: str, rules: _Rules) -> Reading:
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
    rules: _Rules,
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


def _joined_before(found: re.Match[str], rules: _Rules) -> bool:
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


def _stands(found: re.Match[str], rules: _Rules, *, labelled: bool = False) -> bool:
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


def _ending(line: str, rules: _Rules) -> int | None:
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
