"""Words beside a number: units, and what makes it another one or takes it back.

Each is a pattern. Lists are closed: a word that is on none is no unit.
"""

# Words in mathematics are products of variables, so that "12 pi" is not 12: whatever is
# set as text may be a unit, and beside it only words that are nothing else. Words that
# change the number, doubt it or name another one are no unit anywhere.
_MANY = (
    r"dozens?|hundred|hundreds|hundredths|[a-z]*thousand|[a-z]*thousand(?:s|ths)"
    r"|[a-z]*illion(?:s|ths)?|tens|tenths|lakhs?|crores?|k|myriads?"
    r"|ribu|ratus|puluh|juta|miliar|triliun|lusin|bin|milyon|milyar|yüz|düzine"
    r"|tusen|tusind|hundra|hundrede?|milj(?:on|ard)(?:er)?|milli(?:on|ard)er|dussin|tjog"
    r"|duizend|miljoen|miljard|honderd|dozijn|tausend|hundert|dutzend|milli(?:on|ard)en?"
    r"|mil|mill[oó]n(?:es)?|milh(?:ão|ões)|bilh(?:ão|ões)|milhar(?:es)?|docenas?|dúzias?"
    r"|centenas?|centenares|decenas?|mille|milliers?|milliards?|centaines?|douzaines?"
    r"|dizaines?|mila|milion[ei]|miliard[oi]|migliaia|centinaia|dozzin[ae]"
    r"|mii|milioane|miliarde|sute|duzin[iă]|tysi[aą]ce?|tysięcy|tuzin\w*|set(?:ek|ki)"
    r"|tisíc\w*|milion\w*|miliard\w*|tucet\w*|ezer|millió|milliárd|száz|tucat|tuhat"
    r"|tuhatta|miljoonaa?|miljardia?|sataa?|tusinaa?|elfu|milioni|libo(?:ng)?|daan"
    r"|nghìn|ngàn|triệu|tỷ|tỉ|trăm|chục"
    r"|тыс\w*|тисяч\w*|хиляд\w*|хиљад\w*|мил+ион\w*|мільйон\w*|миллиард\w*|мільярд\w*"
    r"|млн|млрд|сот(?:ен|ня|ни)|десятк\w*|дюжин\w*|χιλιάδες|εκατομμύρια|δεκάδες"
    r"|ألف|آلاف|مليون|ملايين|مليار|مئة|مائة|هزار|میلیون|میلیارد|אלף|אלפים|מיליון|מאות"
)
_PARTS = (
    "half|halves|thirds|fourths|fifths|sixths|sevenths|eighths|ninths|elevenths|twelfths"
    "|hälften?|drittel|viertel|moitiés?|mitad(?:es)?|tercios?|metà|terzi|половин[аы]|трети"
)
NO_UNIT = (
    r"pi|sqrt|or|and|times|over|mod|base|squared|cubed|factorial|plus|minus|to|than|not"
    r"|st|nd|rd|th|alpha|beta|gamma|delta|epsilon|zeta|theta|iota|kappa|lambda|sigma"
    r"|omega|upsilon|(?:arc)?(?:sine?|cos(?:ine)?|tan(?:gent)?)h?|log|ln|infinity"
    r"|doubled|tripled|halved|quadrupled|negated|inverted|in (?:binary|octal)"
    r"|hexadecimal|approx\w*|roughly|nearly|almost|maybe|perhaps|possibly|probably"
    r"|is|are|isn|aren|equals|if|when|choose"
    r"|(?:less|fewer|more|ten|negative|impossible|wrong|incorrect|false|undefined)"
    r"(?=\W*\})"
    rf"|{_PARTS}|{_MANY}"
)
"""Words that are no unit, in a text that is set as such either."""
# Where no blank parts words. A kilogram (千克) is a unit, a thousand none.
MANY_WITHIN = "[万亿億萬兆만억조]|[千천](?![克米瓦])|백|百(?!分)|แสน"

_LENGTH = (
    "units?|[ck]?m|mm|in|inch(?:es)?|foot|feet|ft|yards?|miles?"
    "|(?:centi|milli|kilo)?met(?:er|re)s?"
)
_MEASURE = (
    "kg|(?:kilo|milli)?grams?|lit(?:er|re)s?|gallons?|ounces?|pounds?|tons?|degrees?"
    "|radians?|percent|dollars?|cents?|euros?|rupees?|yuan|yen|USD"
    "|seconds?|minutes?|hours?|days?|weeks?|months?|years?"
)
_COUNTED = (
    "ways?|pairs?|triples?|triplets?|tuples?|quadruples?|values?|solutions?|numbers?"
    "|integers?|primes?|points?|subsets?|sets?|sequences?|functions?|polynomials?"
    "|permutations?|arrangements?|combinations?|configurations?|partitions?"
    "|colou?rings?|paths?|routes?|triangles?|squares|rectangles?|circles?|regions?"
    "|lines?|segments?|diagonals?|edges?|vertices|faces|cubes|tiles?|pieces?"
    "|digits?|zeros|divisors?|terms?|words?|letters?|outcomes?|cases|choices|options?"
    "|items?|objects?|elements?|people|persons?|students?|children|boys|girls|men|women"
    "|players?|teams?|games?|matches|rounds?|steps?|moves?|turns?|trips?|houses?|rooms?"
    "|cards?|coins?|balls?|marbles?|apples?|oranges?|eggs?|cookies|candies|books?|pages?"
    "|pencils?|boxes|bags?|bottles?|tickets?|cars?|trees?|flowers?|dogs?|cats?|cows?"
    "|chickens?|birds?|fish"
)
_KIND = (
    "ordered|unordered|distinct|different|possible|positive|nonnegative|integer|real"
    "|prime|valid|such|lattice"
)
UNIT = (
    rf"(?:(?:(?:square|cubic|sq\.?)\s)?(?:{_LENGTH})|{_MEASURE}"
    rf"|(?:(?:{_KIND})\s){{0,2}}(?:{_COUNTED})|in total|in all|total|altogether)"
    r"(?:\sper\s(?:hour|minute|second|day|week|month|year|person))?(?!\w)"
)
"""A unit, or what is counted, that needs no font to be told from variables."""
DOUBT = (
    r"\b(?:not|no|none|neither|nor|never|cannot|approx\w*|about|around|roughly|nearly"
    r"|almost|least|most|than|minus|negative|half|twice|thrice|double|triple|quadruple"
    r"|(?:a|one) (?:third|quarter) of|(?:wrong|incorrect|false) (?:answer|value)"
    r"|ungefähr|mindestens|höchstens|nicht|kein\w*|environ|presque|moins|pas|menos|mais"
    r"|casi|quase|circa|meno|aproximad\w*|приблизительно|не|более|менее)\b"
    r"|n['’]t\b|[不约約非负負]|至少|至多|大于|小于|超过"
)
"""Words before a value that take it back or make it another one."""
