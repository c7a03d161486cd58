r"""Taking the dressing off an answer: fonts, colours, sizes, spaces, dollars, tags.

One peeler for numbers, letters and formulas. `undressed` takes off what changes
nothing about a formula and leaves \text{...}, which a formula's reader needs; `plain`
takes that off as well.

Every pattern's repetitions are bounded or end at a brace, so that all takes linear
time.
"""

import re
import unicodedata

_END = r"(?![A-Za-z])"
# Switches have no argument and hold until the group ends.
_SWITCH = re.compile(
    r"\\(?:bf|it|rm|tt|sf|sl|sc|em|cal|bfseries|itshape|mdseries|upshape|rmfamily|"
    r"sffamily|ttfamily|boldmath|unboldmath|displaystyle|textstyle|scriptstyle|"
    r"scriptscriptstyle|tiny|scriptsize|footnotesize|small|normalsize|large|Large|LARGE|"
    r"huge|Huge|centering|limits|nolimits|strut|mathstrut|noindent|relax|protect|par|"
    rf"newline|hfill?|left|right|middle|[bB]igg?[lrm]?|checkmark|blacksquare|square|Box|qed|"
    rf"hline){_END}"
)
# Marks of mathematics, thin negative space, soft line ends; none leaves any ink.
# A line's end comes first, for "\\\\[2pt]" holds no "\\[".
_NO_INK = re.compile(
    r"(?P<line>\\\\)(?:\*?\[\s?(?:[-+]?[0-9.]{1,8}\s?\\?|\\)[a-z]{2,20}\s?\])?"
    r"|\\(?:left|right)\.|\\[!/()\[\]#]|\$|(?<!\\)\\$"
    r"|[✓✔✅■∎\u200b\u200c\u200d\ufeff]"
)
# Lines and columns, which in a matrix are what it means.
_LAYOUT = re.compile(
    r"\\\\&?|(?<!\\)&"
    r"|\\begin\{(?:array|tabular)\}(?:\[[a-z]\])?\{[^{}]{0,20}\}"
    r"|\\begin\{[A-Za-z]{1,20}\*?\}|\\end\{[A-Za-z]{1,20}\*?\}"
)
_MARK = "\x00"
"""Stands for layout until what is around it is peeled."""
_ENDS, _BEGINS = r"[0-9A-Za-z)}\]!%]", r"[-−+]?\s{0,3}[0-9A-Za-z\\({\[.]"
_PARTS = {
    False: re.compile(
        rf"(?<=[0-9])\s{{0,9}}{_MARK}[\s{_MARK}]*"
        rf"(?=[-−+(\[{{.]{{0,3}}\s?[0-9]|[A-Za-z]{{1,3}}[\s{_MARK}]{{0,3}}=)"
    ),
    True: re.compile(rf"(?<={_ENDS})\s{{0,9}}{_MARK}[\s{_MARK}]*(?={_BEGINS})"),
}
"""Layout that keeps apart: numbers and equations, or any two parts of a formula.

Glued together, 4 above 2 would be 42.
"""
_SINGLE = re.compile(
    r"\\begin\{((?:[pbBvV]?matrix|smallmatrix)\*?|array\}\{[^{}]{0,20})\}"
    r"(?P<entry>(?:(?!\\\\|(?<!\\)&|\\begin|\\end).){0,200}?)(?:\\\\)?\s{0,3}"
    r"\\end\{(?:[pbBvV]?matrix|smallmatrix|array)\*?\}",
    re.DOTALL,
)
"""A matrix of one entry."""
_MATRIX = re.compile(r"\\begin\{(?:[pbBvV]?matrix|smallmatrix|array|cases)\*?\}")
# Commands of a text that was escaped twice; a line's end goes before no such word.
_ESCAPED_TWICE = re.compile(
    r"(?<!\\)\\(?=\\(?:left|right|[dt]?frac|sqrt|text|mathrm|mathbf|boxed|begin|end|"
    rf"cdot|times|leq?|geq?|neq?|in|cup|infty|pi|theta|circ|pm){_END})"
)
_THOUSANDS = re.compile(r"(?<=[0-9])(?:,\\!|\\[,;:])\s{0,3}(?=[0-9]{3}(?![0-9]))")
_MONEY = re.compile(
    r"(?:\b(?:US|CA|AU|NZ|HK|C|A))?\\\$|[€£¥]|\\(?:pounds|euro)\b"
    r"|\\(?:text|mathrm)\{\s?(?:USD|EUR|GBP|US|¢)\s?\}|\b(?:USD|EUR|GBP)\b|¢"
)
_SPACE = re.compile(
    r"(?<!\\)\\[,;:> ]"
    rf"|\\(?:q?quad|enspace|enskip|thinspace|medspace|thickspace|space){_END}"
    r"|~|&nbsp;|[\u00a0\u2000-\u200a\u202f\u3000]"
)
_NO_BOX = re.compile(
    r"\\(?:[hv]space|[hv]?phantom|tag|label|footnote|index|rule\{[^{}]{0,20}\})\*?"
    r"\{[^{}]{0,40}\}"
)
_COLOUR = re.compile(
    r"\\(?:color|definecolor|pagecolor)(?:\[[^\]]{0,20}\])?\{[^{}]{0,60}\}"
)
_TWO = re.compile(
    r"\\(?:textcolor|colorbox|mathcolor|style|class|cssId|href|scalebox|bbox|framebox|"
    r"makebox|raisebox|rotatebox|enclose|num)(?:\[[^\]]{0,40}\]){0,2}(?:\{[^{}]{0,120}\})?(?=\s{0,3}\{)"
    r"|\\(?:fcolorbox|resizebox)(?:\{[^{}]{0,60}\}){2}(?=\s{0,3}\{)"
)
_QUANTITY = re.compile(
    r"\\(?:qty|SI)(?:\[[^\]]{0,40}\])?(\{[^{}]{0,40}\})\{[^{}]{0,80}\}"
)
_FORMULA_FONTS = (
    "boldsymbol|bm|pmb|mathbf|mathit|mathnormal|mathsf|mathtt|mathcal|ensuremath|"
    "underline|uline|fbox|boxed|framebox|Aboxed|bold|underbrace|smash|rlap|llap|"
    "mathop|mathrel|mathord|mathbin|vcenter|tcbox|textcircled|circled"
)
_TEXT_FONTS = (
    "text|textbf|textit|textrm|textsf|texttt|textsc|textsl|textup|textmd|textnormal|"
    "emph|mathrm|mathbb|mathfrak|mathscr|mbox|hbox|operatorname|operatorname\\*"
)
_GROUPS = r"|\\.|[{}]"
_AROUND_FORMULA = re.compile(rf"(?P<font>\\(?:{_FORMULA_FONTS})\s{{0,3}})\{{{_GROUPS}")
_AROUND_TEXT = re.compile(
    rf"(?P<font>\\(?:{_FORMULA_FONTS}|{_TEXT_FONTS})\s{{0,3}})\{{{_GROUPS}"
)
_BOLD_TEXT = re.compile(r"\\(?:textbf|textit|textrm|textsf|texttt|emph)(?=\s{0,3}\{)")
_TOKEN_FONT = re.compile(rf"\\(?:{_FORMULA_FONTS}|mathrm)\s{{1,3}}(?=[A-Za-z0-9])")
# Text that has no words is part of the formula: "\\text{10\\%}", "\\mathrm{i}".
_WORDLESS = re.compile(
    r"\\(?:text|mathrm|mbox|operatorname)\s{0,3}\{((?:[^\w{}]|[0-9_])*|\s?[a-z]\s?)\}"
)
_TAG = re.compile(
    r"</?(?:answer|final_answer|b|strong|i|em|u|p|div|span|code|mark|big|small|font)"
    r"(?:\s[^<>]{0,60})?/?>|<br\s?/?>",
    re.IGNORECASE,
)
_GROUP = re.compile(r"(?<![\\A-Za-z_^}])\{([^{}]*)\}")
_EMPHASIS = "*_` "


def undressed(latex: str) -> str:
    r"""A formula without fonts, colours, sizes, money signs and marks of mathematics.

    >>> undressed(r"$\color{red}\boldsymbol{x} + \Large 2$")
    '{x} + 2'
    """
    text = _bare(latex, matrices=True)
    text = _WORDLESS.sub(_without_text, _BOLD_TEXT.sub(r"\\text", text))
    text = _kept_apart(_unwrapped(text, _AROUND_FORMULA, "{}"), formula=True)
    text = text.rstrip(" .;:") or text
    if text.startswith("**") and text.endswith("**"):
        text = text[2:-2].strip()
    inner = _without_outer(text)
    is_set = "," in inner and inner[:1] not in ("(", "[")
    return text if is_set else inner


def plain(latex: str) -> str:
    r"""The same without \text{...}, emphasis and outer braces either.

    >>> plain(r"$\text{(B)}$")
    '(B)'
    """
    text = _unwrapped(_bare(latex), _AROUND_TEXT, "  ")
    # Groups that only held a switch: {\bf 73}.
    text = _GROUP.sub(r" \1 ", text)
    text = _kept_apart(text, formula=False)
    text = _without_outer(text)
    return text.strip(_EMPHASIS) or text


def _without_outer(text: str) -> str:
    """Without the braces of groups that hold all of it: {{a}} is a, {a}{b} stays."""
    closes: dict[int, int] = {}
    opened: list[int] = []
    for brace in re.finditer(r"\\.|[{}]", text):
        if brace[0] == "{":
            opened.append(brace.start())
        elif brace[0] == "}" and opened:
            closes[opened.pop()] = brace.start()
    start, end = 0, len(text)
    while closes.get(start) == end - 1:
        start, end = start + 1, end - 1
        while start < end and text[start] == " ":
            start += 1
        while start < end and text[end - 1] == " ":
            end -= 1
    return text[start:end]


def ascii_digits(text: str) -> str:
    """Digits of any script, and full-width forms, as ASCII; "cm²" stays as it is."""
    if text.isascii():
        return text
    return "".join(map(_ascii, text))


def _ascii(letter: str) -> str:
    if letter.isdecimal():
        return str(unicodedata.decimal(letter))
    if "！" <= letter <= "～":
        return chr(ord(letter) - 0xFEE0)
    return letter


def _bare(latex: str, *, matrices: bool = False) -> str:
    text = _TAG.sub(" ", _MONEY.sub("", ascii_digits(latex)))
    text = _THOUSANDS.sub("", _ESCAPED_TWICE.sub("", text))
    text = _NO_INK.sub(lambda found: found["line"] or "", text)
    if matrices:
        text = _SINGLE.sub(r"(\g<entry>)", text)
    if not (matrices and _MATRIX.search(text)):
        text = _LAYOUT.sub(_MARK, text)
    text = _SPACE.sub(" ", text)
    text = _COLOUR.sub("", _NO_BOX.sub("", text))
    text = _SWITCH.sub("", _QUANTITY.sub(r"\1", _TWO.sub("", text)))
    return " ".join(_TOKEN_FONT.sub("", text).split())


def _kept_apart(text: str, *, formula: bool) -> str:
    """With blanks for layout, and semicolons where it parts what is no one thing."""
    text = _PARTS[formula].sub("; ", text)
    return " ".join(text.replace(_MARK, " ").split())


def _without_text(found: re.Match[str]) -> str:
    """An exponent's digits or letters as a group, what else there is as it stands."""
    inner = found[1].strip()
    before = found.string[found.start() - 1 : found.start()]
    if before in ("^", "_"):
        return f"{{{inner}}}"
    return inner if inner.isalnum() and not before.isalpha() else f" {inner} "


def _unwrapped(text: str, pattern: re.Pattern[str], ends: str) -> str:
    """Without the fonts that a pattern names, whose braces become `ends`."""
    changed = list(text)
    opened: list[re.Match[str]] = []
    for token in pattern.finditer(text):
        if token["font"] or token[0] == "{":
            opened.append(token)
        elif token[0] == "}" and opened:
            opening = opened.pop()
            if opening["font"]:
                start, end = opening.span()
                changed[start:end] = [ends[0], *[""] * (end - start - 1)]
                changed[token.start()] = ends[1]
    return " ".join("".join(changed).split())
