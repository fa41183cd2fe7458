# SPDX-License-Identifier: Apache-2.0
"""Rules that a program can check in the text of the sources; each function yields findings."""
import re
import subprocess

# What each room may include; examples, tests, testbed and bench may include all of them.
NEEDS = {
    "base": "",
    "ring": "base",
    "netlink": "base",
    "gre": "base",
    "route": "base netlink gre",
    "xdp": "base netlink route",
    "follow": "base ring netlink route",
    "async": "base ring netlink gre route xdp follow",
    "cli": "base ring netlink gre route xdp follow async",
    "c": "base route async cli",
}
FUNCTION_LINES = 70
# Functions that are longer, until they are split; an entry that nobody needs is a finding.
LONG_FUNCTIONS = {
    "tests/xdp/tx_core_stress_test.cpp: TEST": "one story of four threads, told in their order",
}
SUBJECT_COLUMNS = 72
SUBJECTS_SINCE = "2026-11-28 22:00 +0000"
# Comments may name what is not in the tree where they cite the kernel, by its usual prefixes, and
# these.
KERNEL_PREFIX = re.compile(
    "(fib6?|flow|inet6?|ip6?|ipv6|neigh|netif|nft?|rt6?|scm|skb|udp6?|xdp|xsk|xt)_"
)
FOREIGN_WORDS = set(
    "as_default_on basic co_awaited co_awaits mlockall mtu_expires posix_spawn service_registry try_"
    " vfork".split()
)

# What no program is made of (tests) is nothing that others may stand on.
APART = re.compile(r'^[ \t]*#[ \t]*include[ \t]*["<](tests|bench)/', re.MULTILINE)
INCLUDE = re.compile(r"^[ \t]*#[ \t]*include[ \t]*<cowire/(\w+)/(\S+)>", re.MULTILINE)
# Comments, raw strings, strings, characters (but not the ' in 1'000).
TOKENS = re.compile(
    r'//[^\n]*|/\*.*?\*/|R"(\w*)\(.*?\)\1"|"(?:\\.|[^"\\\n])*"'
    r"|(?<![0-9A-Fa-f])'(?:\\.|[^'\\\n])+'",
    re.DOTALL,
)
SCOPE = re.compile(r"(inline )?(namespace|class|struct|union|enum|extern)\b")
BLOCK_OF_COMMENT = re.compile(r"(?:^[ \t]*//[^\n]*\n)+|//[^\n]*", re.MULTILINE)
NAMED = re.compile(r"`([^`\n]+)`|\b([a-z_]\w*)\(\)|\b([a-z]\w*_)(?!\w)|\b([a-z]\w*(?:_\w+)+)\b")
CITES_KERNEL = re.compile(r"\w\.[ch]\b|\bkernel|Linux|RFC", re.IGNORECASE)
FILE = re.compile(r"(?<![\w/.<*])(?:[\w-]+/)*[\w-]+\.(?:hpp|cpp|md|py|cmake)\b")


def owner(name):
    """The room that a file belongs to, or whose tests it holds."""
    return name.parts[1] if name.parts[0] == "tests" else name.parts[0]


def includes(texts):
    """`texts`: {path below the root: text}."""
    for name, text in texts.items():
        room = owner(name)
        for other in APART.findall(text):
            if name.parts[0] != other:
                yield f"{name}: includes {other}/; what both need belongs to testbed/"
        for other, header in INCLUDE.findall(text):
            where = f"{name}: includes {other}/{header}"
            if room == other:
                continue
            if name.parts[0] in NEEDS and other not in NEEDS[room].split():
                yield f"{where}; {room} may include: {NEEDS[room] or 'nothing'}"
            elif name.parts[0] not in ("tests", "testbed", "bench") and header.startswith("detail/"):
                yield f"{where}, which is for {other} alone"


def blanked(text):
    """The text without what is not code, each line where it was."""
    text = TOKENS.sub(lambda found: re.sub(r"[^\n]", " ", found[0]), text)
    return re.sub(r"^[ \t]*#(?:[^\n]*\\\n)*[^\n]*", "", text, flags=re.MULTILINE)


def functions(text):
    """(first line, lines, words) of each function that is not inside another one."""
    code = blanked(text)
    begins = [0]  # Of the statement that is being read, for each scope around it.
    depth = 0  # Of braces inside a function or an initialiser.
    for found in re.finditer(r"[{};]", code):
        at, mark = found.start(), found[0]
        if depth or (mark == "{" and not SCOPE.match(head := declaration(code, begins[-1], at))):
            depth += (mark == "{") - (mark == "}")
            if mark == "}" and not depth and code[at + 1 : at + 200].lstrip()[:1] not in (",", "{"):
                begin = begins[-1] + re.match(r"\s*", code[begins[-1] :]).end()
                if is_function(head):
                    yield code.count("\n", 0, begin) + 1, code.count("\n", begin, at) + 1, head
                begins[-1] = at + 1
            continue
        begins[-1] = at + 1
        if mark == "{":
            begins.append(at + 1)
        elif mark == "}" and len(begins) > 1:
            begins.pop()
            begins[-1] = at + 1


def is_function(head):
    """Rather than an initialiser; a lambda that a name is given to is one, too."""
    head = re.sub(r"operator\s*[^\s\w(]+", "operator", head)
    return "(" in head and not re.search(r"=\s*$|^[^(]*=(?! ?\[)", head)


def declaration(code, begin, end):
    """What stands before a brace, on one line, without template<...> and attributes."""
    words = " ".join(code[begin:end].split())
    before = r"^((template ?<.*?> ?(?=\w))|(\[\[.*?\]\] ?)|(public|private|protected): ?)*"
    return re.sub(before, "", words)


def long_functions(texts, allowed=None):
    allowed = dict(LONG_FUNCTIONS if allowed is None else allowed)
    for name, text in texts.items():
        for line, lines, head in functions(text):
            if lines <= FUNCTION_LINES:
                continue
            called = re.search(r"([\w:~]+) ?\(", head)
            entry = f"{name}: {called[1] if called else head}"
            if entry in allowed:
                del allowed[entry]
            else:
                yield f"{name}:{line}: {lines} lines; {FUNCTION_LINES} is the limit ({head[:60]})"
    for entry in allowed:
        yield f"rules.py: {entry} is no longer too long: take it off LONG_FUNCTIONS"


def words_of(texts):
    """All words of the code, and of strings in it."""
    found = set()
    for text in texts.values():
        found.update(re.findall(r"\w+", re.sub(r"//[^\n]*", "", text)))
    return found


def comments(texts, words, paths):
    """Names and files in comments; `words` and `paths` are what exists in the tree."""
    endings = {"/".join(path.parts[i:]) for path in paths for i in range(len(path.parts))}
    for name, text in texts.items():
        for block in BLOCK_OF_COMMENT.finditer(text):
            where = f"{name}:{text.count(chr(10), 0, block.start()) + 1}"
            for file in FILE.findall(block[0]):
                if file not in endings:
                    yield f"{where}: the comment names {file}, which does not exist"
            if CITES_KERNEL.search(block[0]):
                continue
            for groups in NAMED.findall(block[0]):
                for word in re.findall(r"[A-Za-z_]\w*", "".join(groups)):
                    known = word in words or word in FOREIGN_WORDS or KERNEL_PREFIX.match(word)
                    if not known:
                        yield f"{where}: the comment names '{word}', which does not exist"


def subjects(root, since=SUBJECTS_SINCE):
    log = ["git", "-C", str(root), "log", f"--since={since}", "--format=%h %s"]
    done = subprocess.run(log, capture_output=True, text=True)
    for line in done.stdout.splitlines():
        commit, subject = line.split(" ", 1)
        if (columns := len(subject)) > SUBJECT_COLUMNS:
            yield f"commit {commit}: a subject of {columns} columns; {SUBJECT_COLUMNS} is the limit"
