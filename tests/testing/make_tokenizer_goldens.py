#!/usr/bin/env python3
"""Writes tests/data/tokenizer_goldens.json and tests/data/chat_goldens.json.

Token ids come from Hugging Face `tokenizers` running the micro checkpoint's tokenizer.json; chat renderings from jinja2 set up as
`transformers` does (sandboxed, trim_blocks, lstrip_blocks, raise_exception).

    python3 -m venv venv && venv/bin/pip install tokenizers==0.22.1 jinja2==3.1.6
    venv/bin/python tests/testing/make_tokenizer_goldens.py
"""

import json
import pathlib
import random

import jinja2.sandbox
import tokenizers

DATA = pathlib.Path(__file__).resolve().parent.parent / "data"
MICRO = DATA / "micro-e4b"

# U+2581 itself is left out: SentencePiece stores a space as U+2581 and cannot tell the two apart (FORMATS, tokenizer).
WRITTEN = [
    "", " ", "  ", "a", " a", "a ", "\n", "\n\n", "\t", "\r\n", "\0", "\x7f", "\x01A\x01",
    "Hello, world!", "Hello  world", "  leading", "trailing  ", "The quick brown fox jumps over the lazy dog.",
    "In the beginning God created the heaven and the earth.", "It's 3.14159, not 22/7; see §4.2 – “quoted” … end",
    "1234567890 0x1F 1e-9 007", "2026-11-24T06:43:19Z", "def f(x):\n    return x ** 2  # square\n",
    "int main(void) {\n\tprintf(\"%d\\n\", 42);\n\treturn 0;\n}\n", "{\"key\": [1, 2.5, null, true]}", "<html><body class='x'>&amp;</body></html>",
    "SELECT * FROM t WHERE a >= 1 AND b != 'x';", "$ apt-get install -y libfoo-dev && echo done | tee /tmp/log", "x = (a+b)*c/d-e%f^g|h&~i<<2>>1",
    "https://example.org/a/b?c=d&e=f#g", "user@example.com", "CamelCase snake_case SCREAMING_CASE kebab-case",
    "Grüße aus Köln, Straße", "Où est l'été ? Ça va", "El niño comió piñas ¿verdad?", "Zażółć gęślą jaźń", "Příliš žluťoučký kůň", "Iñtërnâtiônàlizætiøn",
    "Съешь же ещё этих мягких французских булок", "Ξεσκεπάζω την ψυχοφθόρα βδελυγμία", "שלום עולם", "مرحبا بالعالم", "नमस्ते दुनिया", "สวัสดีชาวโลก",
    "你好，世界", "こんにちは世界", "안녕하세요 세계", "日本語とEnglishの混在", "ქართული ენა", "Հայերեն", "አማርኛ", "தமிழ்", "ភាសាខ្មែរ",
    "😀", "😀😃😄", "👩‍👩‍👧‍👦 family", "🇩🇪🇯🇵 flags", "👍🏽 skin", "❤️ heart", "a😀b c", "🤖 robot said: ok",
    "é vs é", "ﬁ ligature", "Å Å Å", "zero\u200bwidth", "nb\u00a0sp", "em\u2003sp", "ideo\u3000graphic", "\ufeffBOM", "\u2028line\u2029para", "\U0010ffff",
    "<bos>", "<eos>", "<pad>", "<unk>", "<mask>", "[multimodal]", "<unused0>", "<unused99>", "<unused", "<unused9999>", "<start_of_turn>", "<end_of_turn>",
    "<bos>Hello", "Hello<eos>", "<<bos>>", "<bos", "bos>", "< bos >", "<start_of_turn>user\nHi<end_of_turn>\n<start_of_turn>model\n",
    "<bos><start_of_turn>user\nWhat is a <unk> token?<end_of_turn>\n", "<start_of_image><image_soft_token><end_of_image>", "<audio_soft_token> sound",
    " <start_of_turn> ", "<start_of_turn><start_of_turn>", "<end_of_turn>\n\n\n<end_of_turn>", "a<pad>b<pad>c", "<0x41>", "<0x0A>", "<0x00><0xFF>",
    "\n\n\n\n\n", "\n \n  \n   \n", "\t\t\tdeep", " \t \t ", "a\n\nb\n\n\nc\n\n\n\nd\n\n\n\n\ne", "aaaaaaaaaaaaaaaaaaaaaaaa", "ababababababab", "hahahahaha",
    "ananananas banananana", "thethethethe", "   the   the   ", "inininin", "ssssss", "----------", "==========", "..........", "!!!???!!!", "''''\"\"\"\"",
]


def lines():
    yield from WRITTEN
    for count in list(range(2, 20)) + [31, 32, 33, 64, 65]:
        yield " " * count
        yield "x" + " " * count + "y"
    for count in range(2, 12):
        yield "\n" * count
    random.seed(20261124)
    vocabulary = tokenizers.Tokenizer.from_file(str(MICRO / "tokenizer.json")).get_vocab()
    pieces = sorted(piece.replace("\u2581", " ") for piece in vocabulary)
    for _ in range(80):
        yield "".join(random.choice(pieces) for _ in range(random.randint(2, 14)))
    words = [line for line in WRITTEN if line]
    for _ in range(40):
        yield random.choice(["", " ", "\n"]).join(random.choice(words) for _ in range(random.randint(2, 4)))
    scripts = [(0x20, 0x7E), (0xA0, 0x24F), (0x400, 0x4FF), (0x900, 0x97F), (0x4E00, 0x9FFF), (0x1F300, 0x1F6FF), (0x0, 0x1F)]
    for _ in range(30):
        yield "".join(chr(random.randint(*random.choice(scripts))) for _ in range(random.randint(1, 24)))


def tokenizer_goldens():
    tokenizer = tokenizers.Tokenizer.from_file(str(MICRO / "tokenizer.json"))
    goldens, seen = [], set()
    for text in lines():
        if text in seen:
            continue
        seen.add(text)
        ids = tokenizer.encode(text, add_special_tokens=False).ids
        goldens.append({"text": text, "ids": ids})
    return goldens


def raise_exception(message):
    raise jinja2.exceptions.TemplateError(message)


def render(template, variables):
    environment = jinja2.sandbox.ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
    environment.globals["raise_exception"] = raise_exception
    try:
        return {"text": environment.from_string(template).render(**variables)}
    except Exception as problem:  # every failure of the real engine is a failure of ours
        return {"error": type(problem).__name__}


CONVERSATIONS = [
    [("user", "Hello")],
    [("user", "  Hello \n")],
    [("user", "A"), ("assistant", "B")],
    [("user", "A"), ("assistant", " B "), ("user", "C")],
    [("system", "Be brief."), ("user", "A"), ("assistant", "B"), ("user", "C")],
    [("user", "A"), ("user", "B")],
    [("assistant", "A")],
    [("user", [{"type": "text", "text": " look "}, {"type": "image"}, {"type": "audio"}])],
    [("system", [{"type": "text", "text": "S"}]), ("user", "A")],
    [("user", 7)],
    [],
]

EXPRESSIONS = [
    "1 + 2 * 3 - 4", "7 // 2", "-7 // 2", "7 % 3", "-7 % 3", "7 - -2", "(1 + 2) * 3", "1 < 2 and 2 <= 2 and 3 > 2 and 2 >= 2", "1 == 1 != 2", "1 < 2 < 3", "3 > 2 > 2",
    "not 1 == 2", "1 in [1, 2]", "3 not in [1, 2]", "'ell' in 'Hello'", "'x' in {'x': 1}", "'a' ~ 1 ~ true ~ none", "'a' + 'b' * 3", "'ab' 'cd'", "[1, 2] + [3]", "[1, 'a', none, true]",
    "{'a': 1, 'b': [2]}", "'yes' if 1 else 'no'", "'yes' if 0", "'x' if false else ('y' if true else 'z')", "a.b.c", "a['b']['c']", "l[0] ~ l[-1] ~ l[1:] ~ l[:-1] ~ l[::2] ~ l[::-1]", "s[1:3] ~ s[-2:] ~ s[0] ~ s[::-1]",
    "l[9]", "a.missing", "missing", "missing is defined", "a is defined", "s is string", "l is string", "l is iterable", "s is iterable", "a is mapping", "l is sequence", "1 is number", "none is none", "true is boolean",
    "l is not none", "missing is undefined", "s|trim", "'  x '|trim", "'x,'|trim(',')", "s|length", "l|length", "s|upper", "s|lower", "s|capitalize", "l|join(', ')", "l|first", "l|last", "missing|default('d')", "''|default('d', true)",
    "s|replace('o', '0')", "'a,b,c'.split(',')", "'a,b,c'.split(',')[1]", "' a  b '.split()", "s.startswith('He')", "s.endswith('lo')", "' x '.strip()", "'xxaxx'.strip('x')", "' x '.lstrip() ~ '|'", "' x '.rstrip() ~ '|'",
    "s.upper()", "s.lower()", "s.replace('l', 'L')", "a.get('b')", "a.get('zz', 5)", "a.items()|list", "a.keys()|list", "d|items|list", "range(4)|list", "range(1, 10, 3)|list", "'\\n\\t\\\\\\'\"\\x41\\u00e9'", "\"it's\"", "'%'", "1|string + 'x'", "'12'|int + 1", "[] or 'empty'", "'' and 'never'", "not ''",
    "true and none", "1 + 'a'", "missing.deeper", "raise_exception('no')", "'a' < 'b'", "[1, 2] == [1, 2]", "{'a': 1} == {'a': 1}", "1 == true", "'\u00e9'|length", "'\u00e9t\u00e9'[1]", "'a\u3000'|trim", "l|unknownfilter", "s is unknowntest", "s.unknown()", "nofunction()", "1 // 0", "l == l and s != 'x'", "''.join(l2)", "(1, 2)[1]", "'\\q'",
    "9223372036854775807 + 1", "'{{' ~ '}}'", "loop", "namespace(x=1).x", "9223372036854775807 < 9223372036854775808",
]

STATEMENTS = [
    "{% for x in l %}{{ x }}{% endfor %}", "{% for x in l %}{{ loop.index }}/{{ loop.length }}{{ '.' if loop.last else ',' }}{% endfor %}", "{% for x in [] %}a{% else %}none{% endfor %}",
    "{% for x in l if x != 2 %}{{ loop.index0 }}{{ x }}{% endfor %}", "{% for k, v in a.items() %}{{ k }}={{ v }};{% endfor %}", "{% for x in l %}{{ loop.previtem }}{{ x }}{{ loop.nextitem }}|{% endfor %}", "{% for x in l %}{{ loop.revindex }}{{ loop.revindex0 }}{{ loop.first }} {% endfor %}",
    "{% set x = 1 %}{% for i in l %}{% set x = x + 1 %}{{ x }}{% endfor %}{{ x }}", "{% set ns = namespace(n=0) %}{% for i in l %}{% set ns.n = ns.n + i %}{% endfor %}{{ ns.n }}", "{% if a %}1{% elif b %}2{% else %}3{% endif %}", "{% if missing %}1{% elif l %}2{% else %}3{% endif %}",
    "{% if false %}{{ raise_exception('never') }}{% endif %}ok", "{% set x, y = 1, 2 %}{{ x }}{{ y }}", "a{# comment #}b", "a {#- tight -#} b", "  {% if true %}\n  x\n  {% endif %}\n  y\n", "  {{ s }}  \n  {%- if true -%}  \n z {%- endif %}\n", "line1\n{% if true %}\nline2\n{% endif %}\nline3\n",
    "{%+ if true %}x{% endif +%}\ny", "  {%+ if true %}x{% endif %}", "\n\n", "x\r\ny\r\n", "{{ '{% raw %}' }}", "{{ s -}}   \n  t", "a   {{- s }}", "{% for i in l -%}\n  {{ i }}\n{%- endfor %}", "{% for i in l %}{% for j in l %}{{ loop.index }}{% endfor %}{% endfor %}", "{% for x in s %}[{{ x }}]{% endfor %}",
    "{% for x in missing %}a{% endfor %}b", "{% for x in 5 %}a{% endfor %}", "{% for k in a %}{{ k }}{% endfor %}", "{% if %}", "{% endif %}", "{{ }}", "{{ 1 +", "{% for x in l %}", "{% unknown %}", "{% macro f() %}{% endmacro %}", "{{ 'unterminated }}", "{# open", "{% set = 1 %}", "{{ (1 }}", "{% for x in l %}{% endif %}",
    "{% set x %}captured{% endset %}{{ x }}", "{% if true -%}   \n\n  x{% endif %}", "x\n   {# c #}\ny", "{% if true %}{% set z = 5 %}{% endif %}{{ z }}", "{% for x in [1] %}{% if true %}{% set q = 5 %}{% endif %}{{ q }}{% endfor %}{{ q }}", "{{ [\n1,\n2\n] }}",
    "{% if 1 if 1 else 0 %}x{% endif %}", "{% if 0, 1 %}x{% endif %}", "{{ s is string is string }}", "{{ 1 if s is string if 1 else 2 }}", "{{ s is string in l }}",
    "{% for x in l %}{{ s }}{% endfor %}{% set s = 1 %}", "{{ s }}{% for x in l %}{{ s }}{% endfor %}{% set s = 1 %}", "{% for x in l %}{% set s = x %}{{ s }}{% endfor %}{% set s = 1 %}{{ s }}",
    "{%- set x = 1 -%}  {{ x }}", "{{ 1 }}\n{{ 2 }}\n",
]
VARIABLES = {"a": {"b": {"c": "deep"}}, "d": {"k": 1}, "l": [1, 2, 3], "l2": ["x", "y"], "s": "Hello", "b": 0}


def chat_goldens():
    template = (MICRO / "chat_template.jinja").read_text()
    chats = []
    for conversation in CONVERSATIONS:
        for prompt in (False, True):
            messages = [{"role": role, "content": content} for role, content in conversation]
            variables = {"messages": messages, "bos_token": "<bos>", "add_generation_prompt": prompt}
            chats.append({"variables": variables, "result": render(template, variables)})
    snippets = ["{{ " + expression + " }}" for expression in EXPRESSIONS] + STATEMENTS
    return {"chats": chats, "variables": VARIABLES, "snippets": [{"template": s, "result": render(s, VARIABLES)} for s in snippets]}


def write(name, value):
    text = json.dumps(value, ensure_ascii=True, indent=0, sort_keys=False)
    (DATA / name).write_text(text + "\n")


if __name__ == "__main__":
    write("tokenizer_goldens.json", tokenizer_goldens())
    write("chat_goldens.json", chat_goldens())
