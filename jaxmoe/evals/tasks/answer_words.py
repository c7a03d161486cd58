"""Words for "answer", "is" and "or" in many languages, as patterns.

The languages are those of multilingual versions of MMLU.
"""

CASED = {
    "antwort|lösung|richtige option": "oder|und",
    "réponse|reponse|option correcte|bonne option": "ou|et",
    "respuesta|opción correcta": "o|u|y|e",
    "risposta|opzione corretta": "o|oppure|e",
    "resposta|alternativa correta|opção correta": "ou|e",
    "ответ": "или|либо|и",
    "відповідь": "або|чи|та|і|й",
    "отговор|отговорът": "или|и",
    "одговор": "или|и",
    "odgovor": "ili|i",
    "jawaban|jawabannya": "atau|dan",
    "cevap|yanıt": "veya|ya da|ve",
    "odpowiedź|odpowiedzią": "lub|albo|oraz|i",
    "odpověď": "nebo|anebo|a",
    "odpoveď": "alebo|a",
    "antwoord": "of|en",
    "svar|svaret": "eller|och|og",
    "vastaus": "tai|ja",
    "válasz": "vagy|és",
    "răspuns|răspunsul": "sau|și|şi",
    "απάντηση": "ή|και",
    "đáp án|trả lời": "hoặc|hay|và",
    "jibu": "au|ama|na",
    "sagot": "o|at",
}
"""Words for "answer" in languages with capitals, and those for "or" and "and" there."""
UNCASED = {
    "答案|正解|回答|解答": "或者|或|还是|還是|和|以及|及|与|與",
    "答え": "または|もしくは|あるいは|と|か",
    "정답|답변|답": "또는|혹은|이나|그리고|와|과",
    "उत्तर": "या|अथवा|और|एवं|तथा",
    "الإجابة|الاجابة|الجواب": "أو|او|و",
    "پاسخ": "یا|و",
    "جواب": "یا|اور",
    "תשובה|התשובה": "או|ו",
    "คำตอบ": "หรือ|และ|กับ",
    "উত্তর": "বা|অথবা|এবং|ও",
    "பதில்": "அல்லது|மற்றும்",
    "సమాధానం": "లేదా|మరియు",
}
"""The same in languages without capitals."""
# Behind the noun: "la réponse correcte", "respuesta final".
_KIND = (
    "correctas?|correctes?|finale?s?|juste|exacte|corretta|correta|corect|"
    "đúng|cuối cùng|yang benar|yang tepat|akhir(?:nya)?|الصحيحة|الصحيح|النهائية|"
    "النهائي|صحیح|درست|نهایی|הנכונה|הנכון|הסופית"
)
_KIND_THAI = "ที่ถูกต้อง|ที่ถูก|สุดท้าย"
OTHER = (
    rf"(?:(?<![^\W_])(?i:{'|'.join(CASED)})|(?:{'|'.join(UNCASED)}))"
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
TAKEN = (
    r"(?:(?<![不没沒勿別别非否未若])(?<!不是)(?<!如果)(?<!假如)(?<!难道)(?<!難道)"
    r"(?:故|应|應|因此|所以|本题|我)(?:选|選)(?:择|擇)?)"
)
"""What says in Chinese, without a noun, that a choice follows: not "不应选"."""
TAKEN_BACK = r"(?:是?(?:不对|不對|不正确|不正確|错|錯)|\W{0,4}\?)"
"""What behind that letter says that it should not be taken, or asks."""
OR_AND = rf"(?:\b(?:or|and|{'|'.join(CASED.values())})\b|{'|'.join(UNCASED.values())})"
"""What joins letters that are named together."""
COMPARED = r"(?:\s?(?:不|相|无|無|的|比|は|が|는|은))"
"""What behind the second letter begins a sentence of its own: "和A不同"."""
BEFORE_NOUN = (
    r"(?:(?:(?i:also|daher|somit|folglich|deshalb|deswegen|donc|ainsi|par conséquent"
    r"|por lo tanto|por tanto|entonces|quindi|dunque|pertanto|perciò|portanto|logo"
    r"|итак|значит|следовательно|поэтому|таким образом|отже|więc|zatem|proto|tedy|dus"
    r"|jadi|dolayısıyla|इसलिए|अतः)|所以|因此|故|综上|따라서|そのため|よって)"
    r"[,、，]?\s?(?:(?i:ist|es|è|é|jest)\s)?)?"
    r"(?:(?i:es ist|(?:richtig|korrekt) ist|c['’]est|это|ich wähle|je choisis"
    r"|elijo|scelgo|выбираю|wybieram|ik kies|jag väljer|saya memilih)\s)?"
    r"(?:(?i:la|die|der|le|el|il)\s|[ao]\s)?"
    r"(?:(?i:richtige|korrekte|bonne|meilleure|правильный|верный|правильна|правилният"
    r"|prawidłowa|poprawna|správná|juiste|doğru|सही)\s|正确|正確|最终)?"
)
"""What may stand before the noun in a sentence that says no more than the answer."""
RIGHT_BEHIND = (
    r"(?:है|(?i:şıkkı|şıkkıdır|richtig|korrekt|correct[eao]?|correta|corretta|juste"
    r"|правильный|верный|правильна|poprawna|prawidłowa))(?![^\W_]|\s?(?:değil|नहीं))"
)
"""What behind the letter says that it is the answer: "ist Antwort B richtig"."""
SENTENCE_ENDS = (
    r"(?=[*_]{0,3}\s{0,2}(?:[.!।。](?:\s|$)|\n|$"
    r"|,?\s?(?i:weil|denn|da|car|parce|puisque|porque|ya que|pois|perché|потому|так как"
    r"|ponieważ|bo|क्योंकि|çünkü)\s))"
)
"""What ends a statement, or gives its reason: no question, no condition."""
DENIED = (
    r"(?:\s?(?:가|이)?\s?(?:아니|아닙)|\s?(?:ではな|ではあり|じゃな)|\s?नहीं"
    r"|\s?(?:吗|嗎))"
)
"""What behind the letter takes it back, or asks for it."""
