#!/usr/bin/env python3
"""Prints 100,000 lines of mixed text for judging tokenizers: the same bytes on every Python from 3.9 on and on every platform.

  mixed_text.py > mixed.txt             the text: UTF-8, lines end in LF, 0 to 200 code points each
  mixed_text.py --kinds > kinds.txt     for each line the name of its kind; KINDS below says what a kind is

A line holds neither LF nor CR, but may hold anything else that is valid UTF-8: NUL and other control characters, U+0085, U+2028,
noncharacters. Split the file at LF and nowhere else. The sha256 of the text is in tests/data/gemma3-270m/mixed-text-ids.json.
Standard library only; of unicodedata only normalize(), and that for characters whose decompositions Unicode guarantees not to change.
"""
import argparse
import re
import sys
import unicodedata
from collections import namedtuple

LINES = 100_000
LONGEST = 200  # code points
SEED = 20261124


class Random:
    """SplitMix64 (Steele, Lea and Flood, 2014)."""

    def __init__(self, seed):
        self.state = seed

    def below(self, limit):
        self.state = (self.state + 0x9E3779B97F4A7C15) & 0xFFFFFFFFFFFFFFFF
        z = self.state
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & 0xFFFFFFFFFFFFFFFF
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & 0xFFFFFFFFFFFFFFFF
        return ((z ^ (z >> 31)) * limit) >> 64

    def between(self, first, last):
        return first + self.below(last - first + 1)

    def chance(self, percent):
        return self.below(100) < percent

    def choice(self, sequence):
        return sequence[self.below(len(sequence))]

    def char(self, ranges):
        return chr(self.between(*self.choice(ranges)))

    def chars(self, ranges, count):
        return "".join(self.char(ranges) for _ in range(count))


ENGLISH = """the of and to in is that it was for on are with as his they be at one have this from or had by hot word but what some we can out other
were all there when up use your how said an each she which do their time if will way about many then them write would like so these her long make thing
see him two has look more day could go come did number sound no most people my over know water than call first who may down side been now find any new
work part take get place made live where after back little only round man year came show every good me give our under name very through just form
sentence great think say help low line differ turn cause much mean before move right boy old too same tell does set three want air well also play small
end put home read hand port large spell add even land here must big high such follow act why ask men change went light kind off need house picture try
us again animal point mother world near build self earth father internationalization antidisestablishmentarianism tokenizer iPhone eBay McDonald's
don't I'm we've they'll O'Reilly state-of-the-art e.g. i.e. Mr. U.S.A. naïve café""".split()

# What a line of one script is made of: words, ranges of letters for invented words, marks that follow letters, gaps between words.
Script = namedtuple("Script", "words letters marks gaps stops")

SCRIPTS = {
    "latin": Script(
        "Grüße Straße Äpfel größte Übermut naïf élève garçon cœur où çà Noël señor pingüino mañana ¿dónde? coração ação irmã perché città più "
        "Łódź źdźbło żółw gęślą příliš žluťoučký kůň ťažký ľúbiť őrült tűzfal čaša đak şişe ığdır İstanbul țară știință smørrebrød ångström æble "
        "þjóð ævintýri õun vėjas ķēniņš Việt Nguyễn đường tiếng phở Ngữ pháp ħobża ŋ ɛyɛ ɔkɔ ǆ ǈ ﬁnd ﬂow ſoft ẞ Ǻ ṩ ẛ̣ Åkerö".split(),
        [(0xC0, 0xFF), (0x100, 0x17F), (0x180, 0x24F), (0x1E00, 0x1EFF), (0x61, 0x7A), (0x61, 0x7A), (0x250, 0x2AF)],
        [(0x300, 0x36F)], [" ", " ", ", ", " – ", "-"], ".!?…»"),
    "cyrillic": Script(
        "съешь же ещё этих мягких французских булок да выпей чаю Привет мир Москва Київ їжак ґанок щастя Беларусь ўсё Ђорђе љубав њега ќерка "
        "объект подъезд ёлка Қазақстан өмір ңұсқа тоҷикӣ Вѣра ѳита".split(),
        [(0x410, 0x44F), (0x410, 0x44F), (0x400, 0x45F), (0x460, 0x481), (0x48A, 0x52F), (0xA640, 0xA66E)],
        [(0x300, 0x301), (0x483, 0x487)], [" ", " ", ", ", " — "], ".!?»"),
    "greek": Script(
        "ξεσκεπάζω την ψυχοφθόρα βδελυγμία Καλημέρα κόσμε Αθήνα ΐ ΰ λόγος Ὀδυσσεύς ἄνδρα μοι ἔννεπε Μοῦσα πολύτροπον ὃς μάλα ᾳ ῷ ᾧ σςΣ".split(),
        [(0x391, 0x3A1), (0x3A3, 0x3CE), (0x3B1, 0x3C9), (0x3D0, 0x3FF), (0x1F00, 0x1F15), (0x1F80, 0x1FB4)],
        [(0x301, 0x301), (0x345, 0x345)], [" ", " ", ", ", "· "], ".;!»"),
    "arabic": Script(
        "مرحبا بالعالم السلام عليكم كتاب مدرسة اللغة العربية محمد ﷺ ﷽ لا إله هٰذا القُرآن ـــــ فارسی می‌خواهم گچپژ اردو ہے ٹھیک ڈاکٹر ﻻ ﺍﻟ ١٢٣ ۴۵۶".split(),
        [(0x621, 0x64A), (0x621, 0x64A), (0x66E, 0x6D3), (0x750, 0x77F), (0xFB50, 0xFBB1), (0xFE70, 0xFE74)],
        [(0x64B, 0x652), (0x670, 0x670)], [" ", " ", "، ", "؛ "], ".؟!"),
    "hebrew": Script(
        "שלום עולם בְּרֵאשִׁית בָּרָא אֱלֹהִים ירושלים תודה רבה ספר לימוד צה״ל ג׳ירפה ײַ שּׁ אָלֶף".split(),
        [(0x5D0, 0x5EA), (0x5D0, 0x5EA), (0x5F0, 0x5F4), (0xFB1D, 0xFB36)], [(0x5B0, 0x5BD), (0x591, 0x5AF), (0x5C1, 0x5C2)], [" ", " ", ", ", "־"], ".?!׃"),
    "devanagari": Script(
        "नमस्ते दुनिया हिन्दी भारत क्षत्रिय ज्ञान श्री कृष्ण विद्यालय पानी मैं हूँ क़लम ज़िन्दगी ॐ १२३ मराठी आहे संस्कृतम् र्‍ क्‍ष".split(),
        [(0x905, 0x939), (0x905, 0x939), (0x958, 0x961), (0x904, 0x97F)], [(0x93E, 0x94D), (0x901, 0x903), (0x93C, 0x93C)], [" ", " ", ", "], "।॥?!"),
    "bengali": Script(
        "আমার সোনার বাংলা বাংলাদেশ নমস্কার পৃথিবী ক্ষমা জ্ঞান বিশ্ববিদ্যালয় ড় ঢ় য় ৎ ১২৩ কী করছেন অসমীয়া ৰ ৱ".split(),
        [(0x985, 0x98C), (0x993, 0x9A8), (0x9AA, 0x9B0), (0x9B6, 0x9B9), (0x9DC, 0x9E1)], [(0x9BE, 0x9C4), (0x9C7, 0x9C8), (0x9CB, 0x9CD), (0x981, 0x983)],
        [" ", " ", ", "], "।?!"),
    "tamil": Script(
        "வணக்கம் உலகம் தமிழ் நாடு மொழி க்ஷ ஸ்ரீ பள்ளி நன்றி யாதும் ஊரே யாவரும் கேளிர் ஔவையார் ௧௨௩".split(),
        [(0xB85, 0xB8A), (0xB8E, 0xB90), (0xB92, 0xB95), (0xBAE, 0xBB9)], [(0xBBE, 0xBC2), (0xBC6, 0xBC8), (0xBCA, 0xBCD)], [" ", " ", ", "], ".?!"),
    "thai": Script(
        "สวัสดี ชาวโลก ภาษาไทย กรุงเทพมหานคร น้ำ ผู้ใหญ่ ทำงาน เก้าอี้ ๆ ๑๒๓ ฤดู ฯลฯ ลาว ລາວ ພາສາ ខ្មែរ ភាសា မြန်မာ".split(),
        [(0xE01, 0xE2E), (0xE01, 0xE2E), (0xE30, 0xE33), (0xE40, 0xE46)], [(0xE31, 0xE31), (0xE34, 0xE3A), (0xE47, 0xE4E)], ["", "", " "], "ฯ!"),
    "hangul": Script(
        "안녕하세요 세계 한국어 대한민국 서울 감사합니다 읽다 값 뷁 훈민정음 ㅋㅋㅋ ㅠㅠ ㄱㄴㄷ 漢字 조선".split(),
        [(0xAC00, 0xD7A3), (0xAC00, 0xD7A3), (0x3131, 0x318E), (0x1100, 0x1112), (0x1161, 0x1175), (0xA960, 0xA97C)], [(0x11A8, 0x11C2)],
        [" ", " ", "", ", "], ".?!"),
    "japanese": Script(
        "こんにちは 世界 日本語 東京都 カタカナ ひらがな です ます した という コンピューター パーティー がぎぐ ゔ ヴァイオリン 々 〆切 ㈱ ｶﾞﾝﾀﾞﾑ 「はい」 髙﨑 葛󠄀城".split(),
        [(0x3041, 0x3096), (0x30A1, 0x30FA), (0x31F0, 0x31FF), (0xFF66, 0xFF9D), (0x4E00, 0x9FA5)], [(0x3099, 0x309A), (0x30FC, 0x30FC)],
        ["", "", "", "、", "　"], "。！？"),
    "cjk": Script(
        "你好 世界 中国 北京 我们 他们 可以 什么 學習 台灣 臺灣 龍龜 鬱 龘 靐 𠮷野家 𡃁 𪚥 㐂 㓥 豈 更 車 丽 〇 １２３ ㍿ ⺀ ⼀".split(),
        [(0x4E00, 0x9FA5), (0x4E00, 0x9FA5), (0x4E00, 0x9FA5), (0x3400, 0x4DB5), (0x20000, 0x2A6D6), (0x2A700, 0x2B734), (0xF900, 0xFA2D), (0x2F800, 0x2FA1D),
         (0x30000, 0x3134A)],
        [(0xFE00, 0xFE02), (0xE0100, 0xE0103)], ["", "", "", "，", "、"], "。！？；"),
}

SKIN_TONES = [(0x1F3FB, 0x1F3FF)]
PICTURES = [(0x1F300, 0x1F5FF), (0x1F600, 0x1F64F), (0x1F680, 0x1F6FF), (0x1F900, 0x1F9FF), (0x1FA70, 0x1FAFF), (0x2600, 0x27BF), (0x1F000, 0x1F0FF)]
PERSONS = "👋👍🙏💪👶👦👧👨👩🧑👴👵🤴👮🕵🧙🏃🤷🏊"
ZWJ_TAILS = ["\u2640\ufe0f", "\u2642\ufe0f", "💻", "🚀", "⚕\ufe0f", "🦰", "❤\ufe0f\u200d👨", "👩\u200d👧\u200d👦", "🌾"]
EMOJI_SEQUENCES = ["❤️", "☕", "✈︎", "1️⃣", "#️⃣", "*⃣", "🏳️‍🌈", "🏴‍☠️", "🏴\U000e0067\U000e0062\U000e0065\U000e006e\U000e0067\U000e007f", "👁️‍🗨️", "👯‍♀️",
                   "👨‍👩‍👧‍👦", "©️", "™"]

CODE = r"""
def @id(@id, @id=@num):
if @id @cmp @num and not @id:
return @id[@num:] + [@id for @id in range(@num)]
print(f"{@id:>@num} @word", end='')  # @word
for (int @id = 0; @id < @num; ++@id) {
const auto& @id = *@id->@id(@num, "@word");
std::vector<std::pair<int, @id>> @id{{@num, @num}};
#include <@id/@id.h>  // @word @word
} else if (@id @op= @num) {
assert(@id != NULL && @id[@num] == '\0');
printf("%d: %-10s|\n", @id, @id);
let @id = (@id, @id) => ({...@id, "@word": @num});
console.log(`${@id} @word`);
@id?.@id ?? @id!.@id ||= @num;
fn @id<'a>(@id: &'a mut [u8]) -> Result<(), Box<dyn Error>> {
match @id { Some(@id) | None => |@id| @id, _ => @num }
@id := map[string]interface{}{"@id": @num}
public static void @id(String[] @id) throws @idException {
SELECT @id, COUNT(*) FROM @id WHERE @id @cmp '@word' GROUP BY 1;
<div class="@id" id='@id'>@word</div>
{"@id": [@num, @num, null], "@id": {"@id": true}}
@id: !!@id "@word"  # @word
$ grep -rn --include='*.py' "@id" . | awk '{print $@num}' && echo "$@id" > /dev/null
mov eax, dword ptr [rbp - @num]
x = @num @op @num @op (@id @op @num)
\frac{@id}{@num} \sum_{i=@num}^{\infty} @id_i^{2} = \alpha
\x1b[31m@word\x1b[0m \u00e9 \n\t
/* @word @word */
'''@word @word.'''
##  @word `@id` **@word** [@word](@id.md)
| @word | @num | `@id` |
- [ ] @word: @num%
@id |> @id <$> @id >>= @id
@id::@id::@id(&@id, std::move(@id));
;;;; (defun @id (@id &optional @id) (@op @id @num))
""".strip().split("\n")
OPERATORS = "+ - * / % ** // << >> & | ^ && ||".split()
COMPARISONS = "== != < <= > >= === is in <=>".split()

CONTROL_TOKENS = ["<bos>", "<eos>", "<pad>", "<unk>", "<mask>", "<start_of_turn>", "<end_of_turn>"]
USER_TOKENS = ("[multimodal] <start_of_image> <end_of_image> <table> <caption> <thead> <tbody> <tfoot> <tr> <th> <td> </table> </caption> </td> <h1> <h6> "
               "</h1> <blockquote> <strong> <em> <b> <i> <u> <s> <sub> <sup> <code> </strong> </em> </b> </i> </u> </s> </sub> </sup> </code> <a> <html> <body> "
               "<img> <span> <bbox> <ul> <li> <div> <iframe> <footer> </a> </html> </div> </span>").split()
NEAR_MISSES = ["<unused6242>", "<unused", "<start_of_turn", "start_of_turn>", "<Start_of_turn>", "< bos >", "<bos/>", "<0xZZ>", "<0x4>", "<0x0041>", "<0xab>",
               "</S>", "<s >", "[Multimodal]", "[multimodal", "<<bos>>", "<bo", "<|endoftext|>", "[INST]", "<image_soft_token>", "<th", "<h7>", "<br>", "<TABLE>"]

FORMATS = [(0x200B, 0x200F), (0x2060, 0x2064), (0x202A, 0x202E), (0x2066, 0x2069), (0xFEFF, 0xFEFF), (0xAD, 0xAD), (0x34F, 0x34F), (0x180E, 0x180E),
           (0xFE00, 0xFE0F), (0x115F, 0x1160)]
SPACES = "\u00a0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u202f\u205f\u3000"
CONTROLS = [(0x00, 0x09), (0x0B, 0x0C), (0x0E, 0x1F), (0x7F, 0x9F), (0x2028, 0x2029)]
PUNCTUATION = "!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~…–—‘’“”„«»¡¿·•§¶†‡°※〜・！？（）【】。，、"
ENGLISH_GAPS = [" "] * 8 + [", ", ". ", "; ", "! ", "? ", " (", ") ", "  "]
ODD = [[(0xE000, 0xF8FF), (0xF0000, 0xF0FFF), (0x10FF00, 0x10FFFD)],  # private use
       [(0xFDD0, 0xFDEF), (0xFFFE, 0xFFFF)],  # noncharacters
       [(0x40000, 0x4FFFF), (0xE0FFF, 0xE1FFF), (0x0378, 0x0379), (0x2FE0, 0x2FEF), (0x1FC00, 0x1FFFD)],  # unassigned
       [(0xFFF9, 0xFFFD), (0x10FFFE, 0x10FFFF), (0x1FFFE, 0x1FFFF)]]  # specials and more noncharacters
ANY = [[(0x20, 0x7E)], [(0xA1, 0x2FFF)], [(0x0E, 0xD7FF)], [(0xE000, 0x1FFFF)], [(0x20000, 0x10FFFF)], [(0x20, 0x7E), (0x0E, 0xD7FF), (0xE000, 0x10FFFF)]]


def english_word(r):
    word = r.choice(ENGLISH)
    case = r.below(10)
    if case == 0:
        return word.upper()
    if case < 3:
        return word[:1].upper() + word[1:]
    if case == 3:
        return "".join(c.upper() if r.chance(50) else c for c in word)
    if case == 4:
        return word + r.choice(ENGLISH).capitalize()
    return word


def english(r):
    text = "".join(english_word(r) + r.choice(ENGLISH_GAPS) for _ in range(r.between(1, 30)))
    return text.rstrip(" ") if r.below(2) else text


def script_word(r, script):
    if r.chance(70):
        word = r.choice(script.words)
        return unicodedata.normalize("NFD", word) if r.chance(25) else word
    return "".join(r.char(script.letters) + (r.char(script.marks) if r.chance(20) else "") for _ in range(r.between(1, 8)))


def script_line(r, script):
    words = [script_word(r, script) + r.choice(script.gaps) for _ in range(r.between(1, 24))]
    return "".join(words) + r.choice(script.stops)


def identifier(r):
    words = [r.choice(ENGLISH[:150]) for _ in range(r.between(1, 3))]
    style = r.below(5)
    if style < 2:
        return "_".join(words)
    if style < 4:
        return words[0] + "".join(word.capitalize() for word in words[1:])
    return "_".join(words).upper()


def number(r):
    digits = "".join(r.choice("0123456789") for _ in range(r.between(1, 18)))
    return r.choice([digits, digits[:2], digits[:3], digits[0], digits[0] + "." + digits[1:], "-" + digits, "0x" + digits, "%e" % int(digits),
                     digits[:4] + "e-" + digits[-2:], format(int(digits), ","), digits + "%", "$" + digits[:5], digits[:2] + ":" + digits[-2:],
                     digits + "L"])


def indentation(r):
    return r.choice(["", "\t" * r.between(1, 6), "    " * r.between(1, 6), "  " * r.between(1, 9), " " * r.between(1, 40), "\t  "])


def code(r):
    fill = {"id": identifier, "num": number, "op": lambda r: r.choice(OPERATORS), "cmp": lambda r: r.choice(COMPARISONS), "word": english_word}
    lines = [re.sub("@(id|num|op|cmp|word)", lambda m: fill[m[1]](r), r.choice(CODE)) for _ in range(r.between(1, 3))]
    return indentation(r) + r.choice([" ", "  ", "\t", "; "]).join(lines)


def emoji(r):
    kind = r.below(8)
    if kind == 0:
        return r.choice(EMOJI_SEQUENCES)
    if kind == 1:
        return r.choice(PERSONS) + r.char(SKIN_TONES)
    if kind == 2:
        return r.choice(PERSONS) + (r.char(SKIN_TONES) if r.chance(50) else "") + "\u200d" + r.choice(ZWJ_TAILS)
    if kind == 3:
        return r.chars([(0x1F1E6, 0x1F1FF)], 2)
    return r.char(PICTURES)


def emoji_line(r):
    return "".join(emoji(r) + r.choice(["", "", " ", " " + english_word(r) + " "]) for _ in range(r.between(1, 20)))


def odd_code_points(r):
    return "".join(r.chars(r.choice(ODD), r.between(1, 4)) + r.choice(["", "", " ", "a", english_word(r)]) for _ in range(r.between(1, 16)))


def blank_runs(r):
    def run():
        kind = r.below(6)
        if kind < 3:
            return " " * r.choice([1, 2, 3, 4, 5, 7, 8, 15, 16, 30, 31, 32, 33, r.between(1, 100)])
        if kind < 5:
            return "\t" * r.choice([1, 2, 3, 8, 30, 31, 32, 33, r.between(1, 40)])
        return "".join(r.choice(" \t" + SPACES) for _ in range(r.between(1, 12)))

    return "".join(run() + r.choice(["", english_word(r), r.choice(PUNCTUATION), number(r)]) for _ in range(r.between(1, 6)))


def url(r):
    host = r.choice(["example.org", "www.example.com", "sub.domain.example", "localhost:8080", "127.0.0.1", "[::1]", "xn--bcher-kva.example", "bücher.example"])
    path = "".join("/" + r.choice([identifier(r), number(r), r.choice(ENGLISH) + ".html", "%20%C3%A9", "~user", "a-b_c.d"]) for _ in range(r.below(5)))
    query = "&".join(identifier(r) + "=" + r.choice([number(r), r.choice(ENGLISH), "%2F+x"]) for _ in range(r.below(4)))
    scheme = r.choice(["https://", "http://", "ftp://", "file:///", "", "user@", "mailto:me@"])
    return scheme + host + path + ("?" + query if query else "") + r.choice(["", "", "#top"])


def punctuation(r):
    return "".join(r.choice(PUNCTUATION) * r.choice([1, 1, 2, 3, 4, 8, r.between(1, 40)]) + r.choice(["", "", " "]) for _ in range(r.between(1, 20)))


def block_space(r):
    parts = ["\u2581", "\u2581\u2581", "\u2581" * r.between(1, 40), " \u2581", "\u2581 ", "\u2581the", "\u2581" + english_word(r), " ", "  ", english_word(r),
             "\t", "\u2580\u2582"]
    return "".join(r.choice(parts) for _ in range(r.between(1, 14)))


def zero_width(r):
    def sprinkled(word):
        return "".join(c + (r.char(FORMATS) if r.chance(30) else "") for c in word)

    return "".join(r.choice(["", " ", r.char(FORMATS)]) + sprinkled(english_word(r)) for _ in range(r.between(1, 16)))


def control_token(r):
    return r.choice(CONTROL_TOKENS) if r.chance(60) else "<unused%d>" % r.choice([0, 1, 3, 9, 10, 98, 99, 100, r.below(6242), 6241])


def token_line(r, token):
    around = ["", "", " ", "  ", "   ", "\t", "\u2581", ".", "<", ">", "é"]
    return "".join(r.choice(around) + r.choice(["", english_word(r)]) + r.choice(around) + token(r) for _ in range(r.between(1, 7))) + \
        r.choice(around) + r.choice(["", english_word(r)])


def byte_token(r):
    return "<0x%02X>" % r.below(256)


def mojibake(r):
    word = script_word(r, SCRIPTS[r.choice(sorted(SCRIPTS))])
    text = (english_word(r) + " " + word).encode("utf-8").decode(r.choice(["latin-1", "cp1252", "cp437", "koi8-r"]), "replace")
    return text.replace("\r", "").replace("\n", "")


def repeated(r):
    unit = r.choice([r.choice("aexnm.=-_ 0\t"), english_word(r), r.chars([(0x61, 0x7A)], r.between(1, 4)), emoji(r), script_word(r, SCRIPTS["cjk"]),
                     " " + r.choice(ENGLISH)])
    return unit * r.between(2, LONGEST)


def any_code_points(r):
    return r.chars(r.choice(ANY), r.between(1, 60))


def short(r):
    """The only kind that can be empty."""
    return "".join(r.choice([" ", "\t", "a", "é", r.char([(0x20, 0x7E)]), r.char(CONTROLS), emoji(r), "\u2581", r.char(SCRIPTS["cjk"].letters)])
                   for _ in range(r.below(4)))


def pieces_of_all(r):
    parts = []
    for _ in range(r.between(2, 9)):
        text = r.choice(KINDS[:-1]).make(r)
        first = r.below(max(1, len(text)))
        parts.append(text[first : first + r.between(1, 40)])
    return r.choice(["", "", " "]).join(parts)


Kind = namedtuple("Kind", "name weight make")

def numbers(r):
    return r.choice([" ", ", ", "", "-", "."]).join(number(r) for _ in range(r.between(1, 15)))


def control_characters(r):
    return "".join(r.choice([english_word(r), " "]) + r.char(CONTROLS) for _ in range(r.between(1, 20)))


# What every kind of line is; a kind is drawn in proportion to its weight.
KINDS = [
    # English words in lower, upper, mixed and camel case with ordinary punctuation
    Kind("english", 12, english),
    # words of one script, a quarter of them in NFD, and invented words of its letters and marks
    *(Kind(name, 4, lambda r, script=script: script_line(r, script)) for name, script in SCRIPTS.items()),
    # statements of some fifteen languages, indented by spaces or tabs
    Kind("code", 10, code),
    # integers, decimals, exponents, hexadecimal, 1,000,000, times, amounts
    Kind("numbers", 3, numbers),
    # URLs and mail addresses
    Kind("url", 3, lambda r: " ".join(url(r) for _ in range(r.between(1, 3)))),
    # emoji with skin tones, ZWJ sequences, flags, keycaps, tag sequences, variation selectors
    Kind("emoji", 4, emoji_line),
    # private use, noncharacters, unassigned, specials: what a vocabulary falls back to bytes for
    Kind("odd", 4, odd_code_points),
    # runs of spaces and of tabs, also longer than any piece, and the other Unicode spaces, between words
    Kind("blanks", 5, blank_runs),
    # runs of punctuation
    Kind("punctuation", 3, punctuation),
    # U+2581, which SentencePiece writes for a space, next to spaces and words
    Kind("block_space", 3, block_space),
    # zero-width, bidirectional and other format characters inside and between words
    Kind("zero_width", 2, zero_width),
    # spellings of control tokens among words: <bos>, <start_of_turn>, <unused3>
    Kind("control_tokens", 4, lambda r: token_line(r, control_token)),
    # spellings of user-defined tokens: [multimodal], <td>, </s>
    Kind("user_tokens", 4, lambda r: token_line(r, lambda r: r.choice(USER_TOKENS))),
    # spellings of byte tokens: <0x41>
    Kind("byte_tokens", 2, lambda r: token_line(r, byte_token)),
    # almost the spelling of a token
    Kind("near_tokens", 2, lambda r: token_line(r, lambda r: r.choice(NEAR_MISSES))),
    # C0 and C1 control characters, DEL, U+2028 and U+2029 between words
    Kind("control_characters", 2, control_characters),
    # words of any script whose UTF-8 was read as Latin-1, CP1252, CP437 or KOI8-R
    Kind("mojibake", 2, lambda r: " ".join(mojibake(r) for _ in range(r.between(1, 6)))),
    # one character, word or emoji again and again
    Kind("repeated", 2, repeated),
    # code points drawn evenly from large ranges
    Kind("any", 3, any_code_points),
    # none to three code points
    Kind("short", 2, short),
    # pieces of all the kinds above, cut anywhere, one after another
    Kind("pieces", 11, pieces_of_all),
]


def lines():
    """Yields (name of the kind, text) for each line."""
    r = Random(SEED)
    drawn = [kind for kind in KINDS for _ in range(kind.weight)]
    for _ in range(LINES):
        kind = r.choice(drawn)
        yield kind.name, kind.make(r)[:LONGEST]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kinds", action="store_true")
    kinds = parser.parse_args().kinds
    for name, text in lines():
        sys.stdout.buffer.write((name if kinds else text).encode("utf-8") + b"\n")


if __name__ == "__main__":
    main()
