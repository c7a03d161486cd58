r"""The patterns that find the letter of a choice in an answer (`letters`).

They are made for a number of choices: `upper` is "A-D" for four. Every repetition in
them is bounded, so a search takes linear time.
"""

import functools
import re
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

_SOFT = r"[*_\"'`\s]{0,4}"
_ELIMINATED = (
    r"\b(?:rul(?:e|es|ed|ing)\sout|(?:exclud|eliminat)(?:e|es|ed|ing)"
    r"|(?:reject|dismiss|discard)(?:s|ed|ing)?|unlike|except(?:\sfor)?)\s"
    r"(?:both\s)?(?:(?:option|choice)s?\s)?"
)
"""What takes the letters behind it out: no others are named together with them."""
_OPENING = r"[*_$\"'`(\[{<【（→⇒ \t]{0,8}(?:\\[a-z]{2,12}\s?\{?[( \t$*]{0,2}){0,3}"
"""Dressing before a letter."""
_CLOSING = r"[)\]}*_$\"'`. \t\r]{0,6}"
"""Dressing behind it."""
_ENDS = rf"(?={_CLOSING}(?:\n|$))"
_KIND = r"(?:(?i:option|choice|letter)[ \t]{1,3}\(?)?"
_DASH = r"\s{0,2}[-–—=]?\s{0,2}"
_VERB = r"(?:is|was|would be|must be|should be)\b"
_SURE = r"(?:\s{1,3}(?:(?:most\s)?likely|probably|clearly|simply|indeed|thus))?"
_NOUN = rf"\b(?i:(?:answer|option|choice)\s{{1,3}}{_VERB}{_SURE}):?"
"""The answer is ..."""
_CHOSEN = r"\b(?i:choose|chose|select|pick|go with|going with|choice|option)"
_RIGHT = (
    r"(?i:(?:is|must be)\s{1,3}(?:(?:most\slikely\s)?(?:the\s{1,3})?"
    r"(?:correct|right|best)\b"
    r"|(?:the\s{1,3}(?:most\s(?:appropriate|likely|accurate|suitable|plausible)\s"
    r"(?:answer|option|choice)|answer)"
    r"(?=[*_]{0,3}(?:[.,;!]|\s{0,3}(?:\n|$)|\s(?:because|since|as|here"
    r"|(?:to|for|in)\s(?:the|this)\s(?:question|problem))\b)))))"
)
"""... is correct, is the most likely answer."""
_ALONE = re.compile(
    r"[)\]}>】*_$\"'`.,;! \t\r]{0,8}(?:</[a-z_]{1,12}>[ \t\r]{0,4})?(?:\n|\Z)"
)
_LABELLED = re.compile(r"[*_]{0,3}[).:\]][^\n]{0,1000}(?:\n\s{0,4}|\Z)")


@dataclass(frozen=True)
class LetterRules:
    """Patterns for a number of choices; the group `letter` is the one chosen.

    answer: the strict rule's "Answer: X". phrases: what else says it. box: a box that
    holds one letter; box_several: more. several: what behind a letter names another;
    joined: what before it does; eliminated: what before it only rules others out.
    alone: the rest of a line that holds nothing else; labelled: that has a choice's
    text; label: a line that opens a choice. concluded, ending: last lines that end with
    a letter. mentioned: any letter; parentheses: one in them. before_text: what stands
    before a choice's text.
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


@functools.lru_cache
def letter_rules(count: int) -> LetterRules:
    """The patterns for so many choices."""
    upper = f"A-{ascii_uppercase[count - 1]}"
    box, box_several = _boxes(upper)
    concluded, ending = _last_lines(upper)
    joined, eliminated = _named_before(upper)
    colon, other = _announced(upper)
    return LetterRules(
        answer=_answer(upper),
        phrases=_phrases(upper),
        box=box,
        box_several=box_several,
        several=_several(upper),
        joined=joined,
        eliminated=eliminated,
        alone=_ALONE,
        labelled=_LABELLED,
        label=re.compile(
            rf"[ \t]{{0,4}}[-*_(\[]{{0,4}}[ \t]{{0,2}}(?P<label>[{upper}])"
            r"(?:[*_]{0,2}[).:\]]|[*_ \t\r]{0,4}(?:\n|\Z))"
        ),
        concluded=concluded,
        ending=ending,
        mentioned=re.compile(
            rf"(?<![\w'’\\])(?:(?!A\s{{1,3}}[a-z])[{upper}])(?![\w'’‐‑-])"
        ),
        parentheses=re.compile(rf"\(([{upper}])\)"),
        before_text=re.compile(f"^.*?(?:{colon}|{other}|{_NOUN})"),
    )


def _answer(upper: str) -> re.Pattern[str]:
    """The last place that says "Answer: X", in many languages."""
    colon, other = _announced(upper)
    sentence, thought = _no_sentence(upper)
    return re.compile(
        f"(?:{colon}{_OPENING}{sentence}|{other}{_OPENING}{thought}){_KIND}"
        f"{_letter(upper)}"
    )


def _phrases(upper: str) -> re.Pattern[str]:
    """Sentences that say which choice is right."""
    colon, other = _announced(upper)
    sentence, thought = _no_sentence(upper)
    return re.compile(
        rf"(?:{colon}\s{{0,3}}{_OPENING}{sentence}{_KIND}"
        rf"|{other}\s{{0,3}}{_OPENING}{thought}{_KIND}"
        rf"|{_NOUN}\s{{0,3}}{_OPENING}{thought}{_KIND}"
        rf"|{_CHOSEN}\s?:?\s{{0,2}}{_OPENING}{thought}{_KIND}(?=\S{{1,12}}{_ENDS})"
        rf"|\b(?i:not)\s\(?[{upper}]\)?,?\s(?i:but)\s(?=\S{{1,12}}{_ENDS})"
        rf"|\b(?i:answer){_DASH}{_OPENING}(?=\S{{1,12}}{_ENDS})|{_other_alone(upper)}"
        rf"|(?<![\w'’])\(?(?=[{upper}]\)?\*{{0,2}}\s{{1,3}}{_RIGHT})"
        rf"|\b(?i:option|choice)\s{{1,3}}\(?(?=[{upper}]\)?\s{{1,3}}{_RIGHT})"
        rf"|(?:选项|選項)\s?(?=[{upper}]\s?(?:是|为)?(?:正确|正確|对的))"
        rf"){_letter(upper)}"
    )


def _letter(upper: str) -> str:
    """The letter that is chosen, behind which no word goes on."""
    lower = upper.lower()
    # A small letter only where a bracket or the line's end follows: "a" is a word too.
    alone = r"(?=[)\]}\"'*<]|[ \t\r.]{0,4}(?:\n|$))"
    letter = rf"(?P<letter>[{upper}]|[{lower}]{alone})(?!{DENIED}|[A-Za-zÀ-ɏ0-9‐‑-]"
    return letter + r"|_[^\W_]|['’]\w)"


def _no_sentence(upper: str) -> tuple[str, str]:
    """That no sentence begins here, such as "A circle", and that none with "I" does.

    After a colon one may. After "the answer is", "A because ..." can only mean the
    choice, and so before another script.
    """
    joins = rf"(?:or|and)\b|{OR_AND}\s{{1,3}}[*(]{{0,3}}[{upper}](?![^\W_])"
    sentence, thought = (
        rf"(?!{word}[ \t]{{1,20}}(?!{joins})[0-9A-Za-z_À-ɏḀ-ỿ])"
        for word in ("[AI]", "I")
    )
    return sentence, thought


def _other_alone(upper: str) -> str:
    """In other languages, without a verb or a colon, a sentence that says no more."""
    behind = rf"[*_)]{{0,4}}\s?(?:{BE}\s)?[*_]{{0,3}}{RIGHT_BEHIND}{SENTENCE_ENDS}"
    return (
        rf"(?:(?m:^)|(?<=[.!।]\s)|(?<=。))[*_#> \t]{{0,6}}{BEFORE_NOUN}{OTHER}"
        rf"(?:{_DASH}{_OPENING}(?=\S{{1,12}}{_CLOSING}\s{{0,9}}\Z)"
        rf"|\s{_OPENING}(?=[{upper}]{behind}))"
    )


def _boxes(upper: str) -> tuple[re.Pattern[str], re.Pattern[str]]:
    """What a box holds: one letter, or several."""
    one = re.compile(
        r"(?:(?i:option|choice|answer|final answer|the answer is)\b)?:?\s?[(\[]?\s?"
        rf"(?P<letter>[{upper}{upper.lower()}])\s?(?:[)\].:].*)?",
        re.DOTALL,
    )
    several = re.compile(
        rf"\(?[{upper}]\)?(?:(?:[\s,/&;|+]|\\?\b(?:or|and)\b){{0,9}}\(?[{upper}]\)?)"
        r"{1,25}"
    )
    return one, several


def _last_lines(upper: str) -> tuple[re.Pattern[str], re.Pattern[str]]:
    """A last line that concludes a letter, and one that ends with it."""
    bare = f"(?P<letter>[{upper}])"
    last = rf"[*_$(\[\"'`]{{0,4}}{bare}[*_$)\].\"'`]{{0,6}}$"
    concluded = re.compile(
        rf"\b(?i:hence|thus|therefore|so|conclude|leaves)[\s:,]{{1,3}}{last}"
    )
    ending = re.compile(
        r"(?:(?:\b(?i:it is|it's|it must be|option|choice"
        r"|answer|go with|choose|select|pick)|[:,=→⇒-]>?)[\s:,]{1,3}|=>\s?)"
        rf"{last}"
        r"|^(?:\\[a-z]{2,12}\s?\{|[*_$(\[\"'`#\s]){0,4}"
        rf"(?P<only>[{upper}{upper.lower()}])"
        r"[*_$)\].}\"'`\s]{0,6}$"
    )
    return concluded, ending


def _named_before(upper: str) -> tuple[re.Pattern[str], re.Pattern[str]]:
    """What before a letter names another with it, and what only rules others out."""
    joined = re.compile(
        rf"(?<!\w)(?:(?P<noun>(?i:option|choice)\s)?\(?[{upper}]\)?\*{{0,2}}\s?"
        rf"(?:[/&]|\bor\b|(?P<and>\band\b))"
        rf"|(?P<list>(?:\(?[{upper}]\)?,\s?){{2,25}})(?:\b(?:and|or)\b)?)"
        r"\s?\(?\*{0,2}(?P<own>(?i:option|choice)\s)?\(?\*{0,2}$"
    )
    eliminated = re.compile(
        rf"(?i:{_ELIMINATED})(?:\(?[{upper}]\)?(?:,\s?|,?\s(?:and|or)\s)){{1,6}}"
        r"(?:(?i:option|choice)\s)?\(?\*{0,2}$"
    )
    return joined, eliminated


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
