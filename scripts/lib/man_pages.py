# SPDX-License-Identifier: Apache-2.0
"""Writes the man pages from what the command, the example configuration and docs/man say.

    man_pages.py COWIRE FOLDER

COWIRE is the built command; FOLDER gets man1/, man3/ and man5/."""
import pathlib
import re
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
TITLE = re.compile(r"^[A-Z][A-Za-z ]*:$")
ENTRY = re.compile(r"^  (\S.*?)(?:  +(.*))?$")
LISTS = {"Positionals:": "ARGUMENTS", "Options:": "OPTIONS", "Subcommands:": "COMMANDS"}


def escaped(text):
    """As roff shows it: no command, and a minus that can be copied."""
    text = text.replace("\\", "\\e").replace("-", "\\-")
    return "\\&" + text if text.startswith((".", "'")) else text


def header(name, section, description, version):
    return [
        f'.TH {name.upper()} {section} "" "cowire {version}"',
        ".SH NAME",
        f"{escaped(name)} \\- {escaped(description)}",
    ]


def verbatim(lines):
    return [".PP", ".nf", *map(escaped, lines), ".fi"]


class Help:
    """What `cowire WORDS --help` prints, taken apart."""

    def __init__(self, command, words):
        self.words = words
        text = subprocess.run(
            [command, *words, "--help"], check=True, capture_output=True, text=True
        ).stdout
        self.description, usage, *rest = text.splitlines()
        self.usage = usage.removeprefix("Usage: ")
        self.sections = [("", [])]
        for line in rest:
            if TITLE.match(line):
                self.sections.append((line, []))
                continue
            if line[:1].strip() and self.sections[-1][0] in LISTS:
                self.sections.append(("", []))  # Text after a list.
            self.sections[-1][1].append(line)

    def subcommands(self):
        for title, lines in self.sections:
            if title == "Subcommands:":
                yield from (line.split()[0] for line in lines if line.strip())

    def body(self, heading=".SH", without=()):
        out = []
        for title, lines in self.sections:
            while lines and not lines[-1].strip():
                lines = lines[:-1]
            if not any(lines) or (title, lines) in without:
                continue
            if title:
                out.append(f'{heading} "{LISTS.get(title, title[:-1].upper())}"')
            if title in LISTS:
                for line in filter(str.strip, lines):
                    entry = ENTRY.match(line)
                    if entry:
                        name, text = entry.groups()
                        out += [".TP", f"\\fB{escaped(name)}\\fR"]
                    else:
                        text = line.strip()
                    out += [escaped(text)] if text else []
            else:
                out += verbatim(lines)
        return out


def page(command, words, version):
    """A command's, with its subcommands' within."""
    own = Help(command, words)
    name = "-".join(["cowire", *words])
    out = header(name, 1, own.description, version)
    out += [".SH SYNOPSIS", f"\\fB{escaped(own.usage)}\\fR", *own.body()]
    if words:  # The command as a whole has a page for each.
        for sub in own.subcommands():
            its = Help(command, [*words, sub])
            out += [f'.SH "{" ".join([*words, sub]).upper()}"', escaped(its.description) + "."]
            out += [".PP", f"\\fB{escaped(its.usage)}\\fR"]
            out += its.body(".SS", own.sections)
    others = [f"\\fBcowire\\-{sub}\\fR(1)" for sub in Help(command, []).subcommands() if not words]
    others = others or ["\\fBcowire\\fR(1)"]
    out += [".SH SEE ALSO", ",\n".join([*others, "\\fBcowire.toml\\fR(5)"])]
    return name + ".1", out


def configuration(version):
    """The example shows every key, with what it is and its default."""
    example = (ROOT / "examples/doublezero.toml").read_text().splitlines()
    example = [line for line in example if not line.startswith("# SPDX")]
    out = header("cowire.toml", 5, "configuration file of cowire send and cowire run", version)
    out += [
        ".SH DESCRIPTION",
        "\\fBcowire send\\fR and \\fBcowire run\\fR read it with \\fB\\-\\-config\\fR, and",
        "\\fBcowire_open_file\\fR() does. It is TOML in plain ASCII. Options of the command line go",
        "before it. Unknown keys and bad values are refused with file, line and column.",
        ".SH EXAMPLE",
        "Every key that there is. What is commented out shows a value that is not the default.",
        *verbatim(example),
        ".SH SEE ALSO",
        "\\fBcowire\\-send\\fR(1),\n\\fBcowire\\-run\\fR(1)",
    ]
    return "cowire.toml.5", out


def main(command, folder):
    first = subprocess.run([command, "--version"], check=True, capture_output=True, text=True)
    version = first.stdout.split()[1]
    pages = [page(command, [], version), configuration(version)]
    pages += [page(command, [sub], version) for sub in Help(command, []).subcommands()]
    for name, lines in pages:
        write(folder, name, "\n".join(lines) + "\n")
    for source in (ROOT / "docs/man").iterdir():
        write(folder, source.name, source.read_text().replace("@VERSION@", version))


def write(folder, name, text):
    target = pathlib.Path(folder) / f"man{name[-1]}" / name
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(text)


if __name__ == "__main__":
    main(*sys.argv[1:])
