#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Prints a header as Doxygen is to see it; docs/Doxyfile filters each one through this.

Our comments say some things once that Doxygen wants to have said of every symbol:
- The comment on top of a file is the file's, and its main class's too (which has the file's name).
- A comment is for all overloads of a function, for the aliases directly below one, and for each
  of several variables that one statement declares.
- Special members, comparisons and what Asio prescribes (executor_type, rebind_executor ...) are
  left out unless a comment says something about them.
- C has `/* */` where C++ has `///`.
"""
import pathlib
import re
import sys

SCOPE = re.compile(r"(?:class|struct) (?:\w+::)*(\w+)(?: final)?(?: : .*)?\s*\{$")
WORDS_AROUND = re.compile(r"\[\[.*?\]\] ?|(?:friend|explicit|static|constexpr|inline) ")
ALIAS = re.compile(r"\s*using \w+ =")
# Where a function's name ends; what comes before a template's or a requirement's is not one.
CALLED = re.compile(r"(operator ?\S+?|~?\w+)\s*\((?<!requires \()(?<!noexcept\()(?<!explicit\()")
PRESCRIBED = re.compile(
    r"using (?:executor_type|default_token) =|\b(?:get_executor|query|require)\("
    r"|\boperator(?:=|==|<=>)\(|^~\w+\(|^\w+\(\)[^{]*= default;"
)
# "T a = 1, b = 2;", with or without a comment beside it.
INITIALISED = r"\w+(?: = [^,;]+|\{\})?"
SEVERAL = re.compile(
    rf"^(\s+)(static constexpr )?([\w:<>]+) ({INITIALISED}(?:, {INITIALISED})+);(\s*///<.*)?$"
)


class Declaration:
    """Lines `first` to `last`, the words of the first statement, the comment above."""

    def __init__(self, lines, first):
        self.first = self.last = first
        depth = 0
        text = ""
        while True:
            line = re.sub(r"//.*", "", lines[self.last])
            text += line.strip() + " "
            depth += line.count("{") - line.count("}")
            if depth == 0 and re.search(r"[;}]\s*$", line):
                break
            self.last += 1
        text = WORDS_AROUND.sub("", text.strip())
        self.text = re.sub(r"^template <.*?> ?(?=\w)", "", text)
        called = CALLED.search(self.text.split("{")[0])
        self.name = called[1] if called and not ALIAS.match(self.text) else ""
        above = first
        while above and lines[above - 1].lstrip().startswith("///"):
            above -= 1
        self.comment = lines[above:first]
        if "///<" in "".join(lines[first : self.last + 1] + self.comment):
            self.comment = [line for line in self.comment if "///<" not in line]
            self.beside = True
        else:
            self.beside = False

    def documented(self):
        return bool(self.comment) or self.beside

    def left_out(self, owner):
        if self.text.startswith("struct rebind_executor"):
            return True
        if self.documented():
            return False
        copies = rf"^{owner}\((?:const )?{owner}\b(?:<\w+>)?&{{1,2}}"
        return bool(PRESCRIBED.search(self.text) or (owner and re.search(copies, self.text)))


def begins(lines, number):
    """Whether a declaration begins here, as clang-format lays it out."""
    line = lines[number]
    if not re.match(r"(?:  |    )?[A-Za-z~\[]", line):
        return False
    if re.match(r"\s*(?:public|private|protected|namespace|return|case|default)\b", line):
        return False
    before = re.sub(r"\s*//.*", "", lines[number - 1]).rstrip()
    return before == "" or before[-1] in ";{}:" or before.startswith(("#", "private"))


def declarations(lines):
    """(declaration, class around it) of all that is not inside a function."""
    owners = []  # (name, indentation) of the classes that are open.
    number = 0
    while number < len(lines):
        line = lines[number]
        indentation = len(line) - len(line.lstrip())
        while owners and line.strip() and indentation <= owners[-1][1]:
            owners.pop()
        if not begins(lines, number):
            number += 1
            continue
        statement = line.strip()
        if statement.startswith("template <") and number + 1 < len(lines):
            statement = lines[number + 1].strip()
        opened = SCOPE.match(statement)
        if opened and not statement.startswith("struct rebind_executor"):
            yield Class(lines, number, opened[1]), owners[-1][0] if owners else ""
            owners.append((opened[1], indentation))
            number += 2 if line.strip().startswith("template <") else 1
            continue
        if statement.startswith(("enum ", "extern ")) and statement.endswith("{"):
            enumeration = Class(lines, number, re.findall(r"(\w+)(?: :| \{)", statement)[0])
            yield enumeration, owners[-1][0] if owners else ""
            while not lines[number].strip().startswith("}") and "};" not in lines[number]:
                number += 1
            number += 1
            continue
        found = Declaration(lines, number)
        yield found, owners[-1][0] if owners else ""
        number = found.last + 1


class Class:
    """One whose members follow, or an enumeration."""

    def __init__(self, lines, first, name):
        self.first, self.name = first, name
        self.commented = lines[first - 1].lstrip().startswith("///")

    def documented(self):
        return self.commented


def split(line, comment):
    """Each variable of a statement with its comment."""
    found = SEVERAL.match(line)
    words = found[5].replace("///<", "").strip() if found[5] else ""
    words = words or " ".join(part.strip().removeprefix("///").strip() for part in comment)
    head = f"{found[2] or ''}{found[3]}"
    return found[1] + " ".join(f"{head} {one}; /**< {words} */" for one in found[4].split(", "))


def cpp_view(text, stem):
    for macro in re.findall(r"(?m)^#undef (\w+)", text):  # Nobody's but this file's.
        text = re.sub(rf"(?m)^#(?:define|undef) {macro}\b.*$", "", text)
    # Doxygen would take what separates digits for a quotation mark.
    lines = re.sub(r"(?<=\d)'(?=\d)", "", text).splitlines()
    out = list(lines)
    top = next(number for number, line in enumerate(lines) if line.startswith("///"))
    out[top] = "/// \\file\n" + lines[top]
    seen = list(declarations(lines))
    told = {(owner, one.name) for one, owner in seen if one.documented()}
    before = None
    for one, owner in seen:
        if isinstance(one, Class):
            if one.name == stem and not one.documented():
                out[one.first] = f"/// \\copydoc {stem}.hpp\n" + lines[one.first]
            before = None
            continue
        if one.left_out(owner):
            begin = one.first - len(one.comment)
            out[begin : one.last + 1] = [""] * (one.last + 1 - begin)
            continue
        line = lines[one.first]
        if SEVERAL.match(line) and one.documented():
            for number in range(one.first - len(one.comment), one.first):
                out[number] = ""
            out[one.first] = split(line, one.comment)
        elif not one.documented() and one.name and (owner, one.name) in told:
            out[one.first] = f"/// \\overload\n{line}"
        elif ALIAS.match(line) and not one.documented() and before and before.last == one.first - 1:
            one.comment = before.comment
            out[one.first] = "\n".join([*one.comment, line])
        before = one if ALIAS.match(line) and one.comment else None
    return "\n".join(out) + "\n"


def c_view(text):
    text = re.sub(r"(?m)^([ \t]*[^\s/].*[;,{}\w]) +/\* ", r"\1 /**< ", text)
    text = re.sub(r"(?m)^(\s*)/\* (?!SPDX)", r"\1/** ", text)
    return text.replace("/** ", "/** \\file\n * ", 1)


def main(path):
    path = pathlib.Path(path)
    text = path.read_text()
    sys.stdout.write(c_view(text) if path.suffix == ".h" else cpp_view(text, path.stem))


if __name__ == "__main__":
    main(sys.argv[1])
