"""Draw patterns and texts, and ask a JavaScript engine (`node`) which patterns match which texts."""

from __future__ import annotations

import json
import random
import subprocess
from pathlib import Path
from typing import Any

#: What JavaScript said; `python -m tools.ecma_patterns` writes it.
GOLDEN = Path(__file__).parents[1] / "golden" / "ecma_patterns.jsonl"
#: Texts that tell meanings apart: letters of several alphabets, digits, blanks, line ends, halves of characters.
TEXTS = (
    "", "a", "b", "A", "Z", "_", "0", "9", "-", "<", ">", "/", "\\", "]", "[", "{", "}", "a{2", "a{,3}", "aa", "aaa",
    "ab", "ba",
    "abab", "a b", "a-b", "a.b", "a\nb", "a\rb", "a\u2028b", "\n", "\r", "\u2028", "\u2029", "\u0085", "\t", "\v",
    "\f", " ", "\u00a0",
    "\u1680", "\u2003", "\u202f", "\u205f", "\u3000", "\ufeff", "\u200b", "\u0000", "\u0001", "\u0008", "\u001a",
    "é", "éa", "aé", "ñ",
    "ß", "ſ", "\u212a", "k", "K", "α", "Ω", "я", "中", "٣", "५", "²", "Ⅷ", "\u0301", "e\u0301", "‿", "€", "+", "$",
    "a$", "^", "^a",
    "|", "(", ")", "*", "?", ".", ",", ":", ";", "!", '"', "'", "@", "#", "%", "&", "=", "~", "`", "foo", "foo-bar",
    "foo bar", "xfoo",
    "u{41}", "u0041", "cA", "p{L}", "k<n>", "😀", "a😀", "😀😀", "𝒳", "\U0010ffff",
)  # fmt: skip
_ATOMS = (
    "a", "b", "k", "é", "😀", ".", "\\.", "\\d", "\\D", "\\w", "\\W", "\\s", "\\S", "\\t", "\\n", "\\v", "\\f", "\\r",
    "\\0", "\\cA", "\\cz",
    "\\cJ", "\\x41", "\\x6b", "\\u0041", "\\u00e9", "\\u{41}", "\\u{1F600}", "\\ud83d\\ude00", "\\u{00061}",
    "\\p{L}", "\\p{Lu}", "\\P{L}",
    "\\p{Letter}", "\\p{gc=Nd}", "\\p{General_Category=Decimal_Number}", "\\p{Script=Greek}", "\\p{sc=Grek}",
    "\\p{scx=Cyrillic}",
    "\\p{ASCII}", "\\p{Any}", "\\p{Alphabetic}", "\\p{Emoji_Presentation}", "\\p{White_Space}", "\\p{Uppercase}",
    "\\p{ID_Start}",
    "\\p{Script=Han}", "\\P{Script=Latin}", "[]", "[^]", "[a-c]", "[^a-c]", "[\\d\\s]", "[^\\D]", "[\\W]", "[\\S_]",
    "[\\w-]", "[-a]", "[a-]",
    "[\\b]", "[\\-\\]]", "[.$^]", "[é-ñ]", "[\\u{1F600}-\\u{1F64F}]", "[\\cA-\\cC]", "[\\p{L}\\d]", "[^\\P{L}]",
    "[&&a]", "[a[b]", "[~~#]",
    "[a--b]", "[\\x00-\\x1f]", "\\/", "\\-", "\\\\", "\\$", "\\^", "\\{", "\\}", "\\]", "]", "}", "{", "a{2",
    "a{,3}", "<", "\\*", "-", ":",
)  # fmt: skip
_ODD = (
    "\\<", "\\>", "\\@", "\\_", "\\:", "\\!", "\\ ", "\\\"", "\\%", "\\#", "\\~", "\\,", "\\=", "\\&", "\\;", "\\'",
    "\\`", "[\\<]", "[\\_]",
    "\\é", "\\a", "\\e", "\\A", "\\z", "\\Z", "\\G", "\\h", "\\R", "\\X", "\\N", "\\K", "\\Q", "\\E", "\\pL",
    "\\p{IsGreek}", "\\p{Greek}", "\\p{l}",
    "\\p{lu}", "\\p{Lu", "\\p", "\\u{110000}", "\\u{}", "\\u41", "\\xg", "\\x4", "\\c", "\\c1", "\\08", "\\00",
    "\\8", "\\k", "\\k<n", "[b-a]", "[\\d-z]",
    "[a-\\d]", "[\\w-a]", "(?i:a)", "(?>a)", "(?#a)", "(?P=n)", "(?x)a", "(?s).", "a*+", "a++", "a**", "*a", "+",
    "?", "{2}", "^*", "$+", "\\b+",
    "(?=a)*", "(?<=a)*", "a{2,1}", "(", ")", "(a", "a)", "[a", "[", "\\", "(?<1>a)", "(?<n>a)(?<n>b)", "(?<a",
    "[[:alpha:]]", "[\\h]", "[\\B]",
    "[\\k]", "[\\c]", "a{99999999}",
)  # fmt: skip
_JS = """
const {patterns, texts} = JSON.parse(require('fs').readFileSync(0, 'utf8'));
console.log(JSON.stringify(patterns.map((pattern) => {
  for (const flags of ['u', '']) {
    let made;
    try { made = new RegExp(pattern, flags); } catch { continue; }
    return [flags, texts.map((text) => made.test(text) ? 1 : 0).join('')];
  }
  return null;
})));
"""


def usual() -> list[str]:
    """Return every atom alone and in its places, odd spellings, and groups with references."""
    made = [*_ATOMS, *_ODD]
    made += [
        form.format(atom=atom)
        for atom in _ATOMS
        for form in ("^{atom}$", "^(?:{atom})+$", "a{atom}", "(?!{atom})^.$")
    ]
    made += [
        "^", "$", "\\bfoo\\b", "\\Bo", "\\b", "\\B", "^\\b", "\\b$", "a\\b", "\\ba", "\\bé", "é\\b", "(?=a)b|c",
        "^(?=.*\\d)", "(?<=a)b",
        "(?<!a)b", "(?<=a|bb)c", "(?<=a+)b", "(?<a>a)\\k<a>", "(a)\\1", "(a|b)\\1", "^(a)(b)\\2\\1$", "(a)?\\1",
        "(?:(a)|b)*\\1", "\\1(a)", "(a\\1)",
        "(a)|\\1", "(?:(a)|(b))\\2", "(?!(a))\\1b", "(a)\\10", "\\2(a)", "(?<a>a)\\k<b>", "^(?:a|ab)(?:c|bcd)*$",
        "a|", "|a", "(|a)b", "()", "(?:)",
        "^(?:)*$", "a??b", "a*?b", "a{1,2}?b", "a{2}", "^a{2,}$", "^a{0}$", "^a{0,1}$", "^(a{2}){1}$", "a$|b",
        "^a|b$", "(?:^a$)", "x{", "x{a}", "x{1",
    ]  # fmt: skip
    return list(dict.fromkeys(made))


def drawn(seed: int, count: int) -> list[str]:
    """Return random patterns of these parts."""
    rng = random.Random(seed)

    def part(depth: int) -> str:
        kind = rng.random()
        if depth and kind < 0.35:
            inner = "".join(part(depth - 1) for _ in range(rng.randint(1, 3)))
            return rng.choice(("({})", "(?:{})", "(?:{}|b)", "(?={})", "(?!{})", "({}|)", "(?<n>{})")).format(
                inner
            )
        if kind < 0.5:
            return rng.choice(_ATOMS) + rng.choice(("*", "+", "?", "{2}", "{0,2}", "+?", "{1,}"))
        if kind < 0.6:
            return rng.choice(("^", "$", "\\b", "\\B", "|"))
        return rng.choice(_ODD) if kind < 0.62 else rng.choice(_ATOMS)

    return ["".join(part(2) for _ in range(rng.randint(1, 4))) for _ in range(count)]


def verdicts(patterns: list[str], node: str) -> list[Any]:
    """Return for each pattern [flags, numbers of the TEXTS that match as a hexadecimal number]; None for one that
    JavaScript refuses."""
    asked = json.dumps({"patterns": patterns, "texts": TEXTS})
    run = subprocess.run([node, "-e", _JS], input=asked, capture_output=True, text=True, check=True)
    answered = json.loads(run.stdout)
    return [each and [each[0], f"{int(each[1][::-1], 2):x}"] for each in answered]
