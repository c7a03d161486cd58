"""Words for "answer", "is" and "or" in many languages, as patterns.

The languages are those of multilingual versions of MMLU.
"""

_CASED = (
    "antwort|lösung|réponse|reponse|respuesta|risposta|resposta|ответ|відповідь|"
    "отговор(?:ът)?|одговор|jawaban(?:nya)?|cevap|yanıt|odpowied(?:ź|zią)|odpověď|"
    "odpoveď|antwoord|svar(?:et)?|vastaus|válasz|răspuns(?:ul)?|απάντηση|đáp án|"
    "trả lời|jibu|sagot|odgovor|alternativa correta|opção correta|opción correcta|"
    "opzione corretta|option correcte|bonne option|richtige option"
)
_UNCASED = (
    "答案|答え|答案|正解|回答|解答|정답|답변|답|उत्तर|الإجابة|الاجابة|الجواب|جواب|پاسخ|"
    "תשובה|התשובה|คำตอบ|উত্তর|பதில்|సమాధానం"
)
# Behind the noun: "la réponse correcte", "respuesta final".
_KIND = (
    "correctas?|correctes?|finale?s?|juste|exacte|corretta|correta|corect|"
    "đúng|cuối cùng|yang benar|yang tepat|akhir(?:nya)?|الصحيحة|الصحيح|النهائية|"
    "النهائي|صحیح|درست|نهایی|הנכונה|הנכון|הסופית"
)
_KIND_THAI = "ที่ถูกต้อง|ที่ถูก|สุดท้าย"
OTHER = (
    rf"(?:(?<![^\W_])(?i:{_CASED})|(?:{_UNCASED}))"
    rf"(?:\s?(?i:{_KIND})(?![^\W_])|{_KIND_THAI}){{0,2}}"
)
"""A word for "answer" in another language than English, with its adjectives."""
BE = (
    r"(?i:ist|lautet|est|es|è|é|este|jest|to|er|är|on|is|je|је|е|είναι|là|adalah|ialah"
    r"|—|–|هي|هو|היא|הוא|है|คือ|是|为|為|は|은|는|选|選)"
)
"""What stands between that word and the letter, where no colon does."""
ARTICLE = (
    r"(?:(?:(?i:la|le|il|el|die|der|das|den)|[ao])\s|l['’])?"
    r"(?:(?:(?i:letra|lettre|lettera|opción|opzione|opção|alternativa|buchstabe|вариант"
    r"|буква|litera|optie|harf|huruf|pilihan)\s)|(?:选项|選項|選択肢)\s?)?"
)
"""What may stand before the letter: "la lettre B", "选项B"."""
TAKEN = r"(?:(?:故|应|應|因此|所以|本题|我)(?:选|選)(?:择|擇)?)"
"""What says in Chinese, without a noun, that a choice follows."""
OR_AND = (
    r"(?:\b(?:or|and|oder|und|ou|et|o|y|e|или|и|або|та|lub|albo|oraz|i|nebo|alebo|vagy|"
    r"és|sau|și|veya|ve|hoặc|và|atau|dan|of|en|eller|och|og|ή|και)\b"
    r"|或者?|和|以及|及|与|與|または|もしくは|と|か|또는|혹은|그리고|와|과|أو|و|या|और|หรือ"
    r"|และ|או|ו)"
)
"""What joins letters that are named together."""
RIGHT_BEHIND = (
    r"(?:है|(?i:şık|richtig|korrekt|correct|correta|corretta|juste|правил|верн|poprawn))"
)
"""What behind the letter says that it is the answer: "ist Antwort B richtig"."""
DENIED = r"(?:\s?(?:가|이)?\s?(?:아니|아닙)|\s?(?:ではな|ではあり|じゃな)|\s?नहीं)"
"""What behind the letter takes it back."""
