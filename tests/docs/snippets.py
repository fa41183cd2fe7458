# SPDX-License-Identifier: Apache-2.0
"""The code blocks of the README and the guide, cut out so that they can be compiled and checked.

    snippets.py cpp|c OUTPUT FILE.md...   all blocks of that language as one source

The word behind the three backticks says what a block is: cpp, c, rust, python, toml, sh, console
(what follows `$ ` is a command, the rest what it printed), or text (no code). Words after it:
- `body`: the inside of a coroutine (C: of a function); tests/docs/context.hpp (context.h) declares
  what it uses without having made it.
- `unchecked: why`: it is not looked at.
"""
import pathlib
import re
import shlex
import sys
from dataclasses import dataclass

ROOT = pathlib.Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs/guide").glob("*.md"))]
LANGUAGES = "cpp c rust python toml sh console text".split()
INCLUDE = re.compile(r"(?m)^#include <.*$\n")
# What a command may stand behind.
BEFORE = ("sudo", "exec")


class Unknown(Exception):
    """A block that does not say what it is."""


@dataclass
class Block:
    page: str
    line: int  # Of the first line inside.
    language: str
    body: bool
    unchecked: str  # Why, or "".
    text: str

    @property
    def where(self):
        return f"{self.page}:{self.line}"


def blocks(pages=None):
    for page in pages or PAGES:
        yield from blocks_of(pathlib.Path(page).read_text(), page)


def blocks_of(text, page):
    """Of one page, in order."""
    page = pathlib.Path(page)
    name = str(page.relative_to(ROOT) if page.is_relative_to(ROOT) else page)
    opened = None
    for number, line in enumerate(text.splitlines(), 1):
        if not line.startswith("```"):
            if opened:
                opened.text += line + "\n"
        elif opened:
            yield opened
            opened = None
        else:
            opened = heading(line[3:].strip(), name, number)
    if opened:
        raise Unknown(f"{opened.where}: the block has no end")


def heading(words, page, number):
    language, _, rest = words.partition(" ")
    reason = rest.removeprefix("unchecked:").strip() if rest.startswith("unchecked:") else ""
    if language not in LANGUAGES or not (rest in ("", "body") or reason):
        raise Unknown(f"{page}:{number}: '```{words}': tests/docs/snippets.py says what it may be")
    return Block(page, number + 1, language, rest == "body", reason, "")


def of(language, pages=None):
    return [one for one in blocks(pages) if one.language == language and not one.unchecked]


def commands(block):
    """The words of each simple command of a sh or console block."""
    text = block.text
    if block.language == "console":
        text = "\n".join(line[2:] for line in text.splitlines() if line.startswith("$ "))
    for line in text.replace("\\\n", " ").splitlines():
        words = shlex.shlex(line, posix=True, punctuation_chars=True)
        words.whitespace_split = True
        simple = []
        for word in [*words, ";"]:
            if word not in (";", "|", "&&", "||", "&"):
                simple.append(word)
                continue
            while redirected := [i for i, one in enumerate(simple) if one in ("<", ">", ">>")]:
                del simple[redirected[0] : redirected[0] + 2]
            while simple and (simple[0] in BEFORE or re.match(r"\w+=", simple[0])):
                simple.pop(0)
            if simple:
                yield simple
            simple = []


def cpp(block, number):
    inside = INCLUDE.sub("\n", block.text)
    place = f'#line {block.line} "{block.page}"'
    around = "", ""
    if block.body:
        body = f"asio::awaitable<void> body_{number}() {{\nusing namespace snippets;\n{{"
        around = body, "}\nco_return;\n}"
    # What a page has defined is known further down; but a program is for itself.
    name = re.sub(r"\W", "_", block.page) + (f"_{number}" if "int main(" in inside else "")
    return f"namespace {name} {{\n{around[0]}\n{place}\n{inside}{around[1]}\n}}\n"


def c(block, number):
    inside = INCLUDE.sub("\n", block.text)
    place = f'#line {block.line} "{block.page}"'
    if block.body:
        head = f"void snippet_{number}(void)"
        return f"{head};\n{head} {{\n{place}\n{inside}}}\n"
    return f"{place}\n{inside}"


def source(language, pages):
    """One translation unit."""
    found = of(language, pages)
    includes = sorted({line for one in found for line in INCLUDE.findall(one.text)})
    context = {"cpp": "context.hpp", "c": "context.h"}[language]
    out = "".join(includes) + f'#include "{ROOT}/tests/docs/{context}"\n'
    make = {"cpp": cpp, "c": c}[language]
    return out + "".join(make(one, number) for number, one in enumerate(found, 1))


if __name__ == "__main__":
    try:
        pathlib.Path(sys.argv[2]).write_text(source(sys.argv[1], sys.argv[3:]))
    except Unknown as error:
        sys.exit(str(error))
