#!/usr/bin/env python3
"""Holds that imports inside a crate point one way.

An arrow goes from a file to each file of its crate that defines a name which it uses: by `use`, by a path such as
`crate::a::b`, or as a method of an object whose methods are spread over several files. A name that a module only passes
on (`pub use`) counts for the file that defines it. In every folder, the files and folders in it, with the folder's own
file (`mod.rs`, or the `.rs` of its name) among them, may form no circle of such arrows. A circle of files is one in the
folder that has them all, so that these are found too. What is compiled for tests only is left out.

`modules.py` looks at the crates of the workspace, `modules.py CRATE...` at these, `modules.py --self-test` at itself.
"""

import pathlib
import re
import sys
import tempfile
import textwrap
import tomllib

# Crates that have circles still. Those that are not named here have none.
NOT_YET = []

TOKEN = re.compile(r"(?:r#)?[A-Za-z_]\w*|::|\d\w*|\S")
SKIPPED = re.compile(
    r"""//[^\n]*|/\*|\b[bc]?r(?P<hashes>\#*)"|\b[bc]?"|"|b?'(?:\\(?:x..|u\{[^}]*\}|.)|[^\\'\n])'""", re.S
)
OPEN, CLOSE = {"(": ")", "[": "]", "{": "}"}, {")", "]", "}"}
ITEMS = {"struct", "enum", "union", "trait", "type", "fn", "const", "static"}
WORDS = ITEMS | {"mod", "use", "impl", "pub", "unsafe", "async", "extern", "macro_rules"}


def blank(text):
    """The text with comments, strings and characters blanked out, at the same offsets."""
    out, at = [], 0
    for_lines = lambda part: re.sub(r"[^\n]", " ", part)
    while found := SKIPPED.search(text, at):
        start, end = found.span()
        token = found[0]
        if token == "/*":
            depth = 1
            while depth and (mark := re.compile(r"/\*|\*/").search(text, end)):
                depth += 1 if mark[0] == "/*" else -1
                end = mark.end()
        elif found["hashes"] is not None:
            close = text.find('"' + found["hashes"], end)
            end = len(text) if close < 0 else close + 1 + len(found["hashes"])
        elif token.endswith('"'):
            close = re.compile(r'(?:\\.|[^"\\])*"', re.S).match(text, end)
            end = close.end() if close else len(text)
        out += [text[at:start], for_lines(text[start:end])]
        at = end
    return "".join(out) + text[at:]


class Module:
    """A module: a file, or a part of one in braces."""

    def __init__(self, name, parent, file):
        self.name, self.parent, self.file = name, parent, file
        self.path = parent.path + (name,) if parent else ()
        self.children, self.defined = {}, set()
        self.uses, self.named = [], []  # (segments, alias or None, line), (segments, line)
        self.impls = []  # (type, methods, calls by line)

    def all(self):
        yield self
        for child in self.children.values():
            yield from child.all()


class File:
    """A source file, as tokens with their lines."""

    def __init__(self, path):
        self.path = path
        text = path.read_text()
        self.lines, code = text.splitlines(), blank(text)
        starts = [0] + [m.end() for m in re.finditer("\n", text)]
        self.tokens, line = [], 0
        for found in TOKEN.finditer(code):
            while line + 1 < len(starts) and starts[line + 1] <= found.start():
                line += 1
            self.tokens.append((found[0].removeprefix("r#"), line + 1))

    def word(self, i):
        return self.tokens[i][0] if 0 <= i < len(self.tokens) else ""

    def line(self, i):
        return self.tokens[min(i, len(self.tokens) - 1)][1]

    def closing(self, i):
        """Where what opens at `i` closes."""
        depth = 0
        for j in range(i, len(self.tokens)):
            word = self.word(j)
            depth += (word in OPEN) - (word in CLOSE)
            if depth == 0:
                return j
        return len(self.tokens)

    def is_test(self, i, end):
        """Whether the attribute in these tokens is `cfg(test)`, or one that needs it."""
        words = [word for word, _ in self.tokens[i:end]]
        if words[:2] != ["cfg", "("] or "test" not in words:
            return False
        return "any" not in words and words[words.index("test") - 2] != "not"

    def after_item(self, i):
        """Where the item, field or arm that begins at `i` ends."""
        while self.word(i) == "#":
            i = self.closing(i + 1) + 1
        first = i
        while self.word(first) == "pub":
            first = self.closing(first + 1) + 1 if self.word(first + 1) == "(" else first + 1
        is_item = self.word(first) in WORDS
        in_braces = not is_item or not (
            self.word(first) in ("use", "static", "type")
            or self.word(first) == "const" and self.word(first + 1) not in ("fn", "unsafe", "async")
        )
        while i < len(self.tokens):
            word = self.word(i)
            if word == ";" or word == "," and not is_item:
                return i + 1
            if word in CLOSE:
                return i
            if word in OPEN:
                i = self.closing(i)
                if word == "{" and in_braces:
                    return i + (2 if self.word(i + 1) == "," and not is_item else 1)
            i += 1
        return i


def read_tree(file, i, prefix, found):
    """Reads one branch of a `use`, and gives where it ends."""
    segments, alias = list(prefix), None
    while True:
        word, line = file.word(i), file.line(i)
        if word == "{":
            i += 1
            while file.word(i) != "}":
                i = read_tree(file, i, segments, found)
                i += file.word(i) == ","
            return i + 1
        if word == "*":
            found.append((segments + ["*"], "*", line))
            return i + 1
        if word == "::":
            i += 1
            continue
        segments.append(word)
        if file.word(i + 1) == "::":
            i += 2
            continue
        i += 1
        if segments[-1] == "self" and len(segments) > 1:
            segments.pop()
        alias = segments[-1]
        if file.word(i) == "as":
            alias, i = file.word(i + 1), i + 2
        found.append((segments, alias, line))
        return i


def impl_type(file, i):
    """The type of the `impl` at `i`, whether it is one of a trait, and where its braces open."""
    j, depth, words = i + 1, 0, []
    while file.word(j) not in ("{", ""):
        word = file.word(j)
        if word == "<":
            depth += 1
        elif word == ">" and file.word(j - 1) != "-":
            depth -= 1
        elif depth == 0:
            if word in ("for", "where"):
                words.append(word)
            elif re.match(r"\w", word):
                words.append(word)
        j += 1
    if "where" in words:
        words = words[: words.index("where")]
    is_trait = "for" in words
    words = words[words.index("for") + 1 :] if is_trait else words
    return [word for word in words if word not in ("dyn", "mut")], is_trait, j


def read_module(module, file, i, end, folder):
    """Reads the tokens of a module. `folder` is where its files are."""
    depth, impl, is_trait = 0, None, False
    while i < end:
        word, line = file.tokens[i]
        if word == "#" and file.word(i + 1) in ("[", "!"):
            opens = i + 1 + (file.word(i + 1) == "!")
            closes = file.closing(opens)
            if file.is_test(opens + 1, closes):
                i = end if opens == i + 2 else file.after_item(closes + 1)
            else:
                i = opens + 1
            continue
        if word == "pub" and file.word(i + 1) == "(":
            i = file.closing(i + 1) + 1
            continue
        if word == "use" and file.word(i + 1) != "<":
            i = read_tree(file, i + 1, [], module.uses)
            continue
        if word == "mod" and file.word(i + 2) in (";", "{"):
            name = file.word(i + 1)
            if file.word(i + 2) == "{":
                child = module.children[name] = Module(name, module, file)
                closes = file.closing(i + 2)
                read_module(child, file, i + 3, closes, folder / name)
                i = closes + 1
            else:
                at = place_of(file, i, folder, name)
                if at and at.name != "tests.rs":
                    child = module.children[name] = Module(name, module, File(at))
                    below = at.parent if at.name == "mod.rs" else at.parent / at.stem
                    read_module(child, child.file, 0, len(child.file.tokens), below)
                i += 3
            continue
        if depth == 0 and word in ITEMS and re.match(r"[A-Za-z_]", file.word(i + 1)):
            name = file.word(i + 1)
            if not (word == "const" and name in ("fn", "unsafe", "async", "extern")):
                module.defined.add(name)
        if depth == 0 and word == "macro_rules":
            module.defined.add(file.word(i + 2))
        if depth == 0 and word == "impl":
            owner, is_trait, opens = impl_type(file, i)
            impl = (owner, set(), []) if owner else None
            if impl:
                module.impls.append(impl)
            for j in range(i, opens):
                read_path(module, file, j)
            i = opens
            continue
        if depth == 1 and impl and word == "fn" and not is_trait:
            impl[1].add(file.word(i + 1))
        if impl and word in ("self", "Self") and file.word(i + 1) in (".", "::") and file.word(i + 3) == "(":
            impl[2].append((file.word(i + 2), line))
        read_path(module, file, i)
        depth += (word in OPEN) - (word in CLOSE)
        if depth == 0 and word == "}":
            impl = None
        i += 1


def read_path(module, file, i):
    """Notes the path that begins at `i`, if one does."""
    word = file.word(i)
    if file.word(i + 1) != "::" or file.word(i - 1) in ("::", ".") or not re.match(r"[A-Za-z_]", word):
        return
    segments, j = [word], i
    while file.word(j + 1) == "::" and re.match(r"[A-Za-z_]", file.word(j + 2)):
        segments.append(file.word(j + 2))
        j += 2
    if len(segments) > 1:
        module.named.append((segments, file.line(j)))


def place_of(file, i, folder, name):
    """The file of `mod name;`, with regard to an attribute `path` before it."""
    before = "\n".join(file.lines[max(0, file.line(i) - 3) : file.line(i)])
    if found := re.search(r'#\[path\s*=\s*"([^"]+)"\]\s*(?:pub(?:\([^)]*\))?\s+)?mod\s+' + name + r"\s*;", before):
        return file.path.parent / found[1]
    for at in (folder / f"{name}.rs", folder / name / "mod.rs"):
        if at.exists():
            return at
    return None


def resolve(module, segments, seen=frozenset()):
    """What a path in a module names: ("module", it), ("item", the module that defines it), or nothing of this crate."""
    first, rest = segments[0], segments[1:]
    if first in ("crate", "self", "super", "$crate"):
        at = module
        if first == "crate":
            while at.parent:
                at = at.parent
        if first == "super":
            at = at.parent or at
        while rest and rest[0] in ("super", "self"):
            at, rest = (at.parent or at) if rest[0] == "super" else at, rest[1:]
        return walk(at, rest, seen)
    if not (found := lookup(module, first, not rest, seen)):
        return None
    kind, at = found
    return walk(at, rest, seen) if kind == "module" else found


def walk(at, segments, seen):
    for n, segment in enumerate(segments):
        if segment == "*":
            return ("item", at)
        found = lookup(at, segment, n + 1 == len(segments), seen)
        if not found:
            return ("item", at)
        kind, at = found
        if kind == "item":
            return found
    return ("module", at)


def lookup(module, name, is_last, seen):
    if (module, name) in seen:
        return None
    seen = seen | {(module, name)}
    if name in module.defined:
        return ("item", module)
    child = module.children.get(name)
    if child and not is_last:
        return ("module", child)
    for segments, alias, _ in module.uses:
        if alias == name:
            # What comes from another crate counts for the module that passes it on.
            return resolve(module, segments, seen) or ("item", module)
    if child:
        return ("module", child)
    for segments, alias, _ in module.uses:
        if alias == "*" and (target := resolve(module, segments[:-1], seen)) and target[0] == "module":
            if target[1] is not module and (found := lookup(target[1], name, is_last, seen)):
                return found
    return None


def arrows(root):
    """The arrows of a crate: {(file, file): {line: text}}."""
    found = {}

    def draw(module, target, line):
        if target.file is not module.file:
            lines = found.setdefault((module.file, target.file), {})
            lines[line] = module.file.lines[line - 1].strip()

    owners = {}
    for module in root.all():
        for segments, _, line in module.uses:
            if (target := resolve(module, segments)) and target[0] == "item":
                if segments[0] in ("crate", "self", "super") or target[1] is not module:
                    draw(module, target[1], line)
        for segments, line in module.named:
            if (target := resolve(module, segments)) and target[0] == "item":
                draw(module, target[1], line)
        for owner, methods, _ in module.impls:
            if (target := resolve(module, owner)) and target[0] == "item":
                for method in methods:
                    owners.setdefault((target[1], owner[-1], method), set()).add(module)
    for module in root.all():
        for owner, _, calls in module.impls:
            if (target := resolve(module, owner)) and target[0] == "item":
                for method, line in calls:
                    homes = owners.get((target[1], owner[-1], method), set())
                    if all(home.file is not module.file for home in homes):
                        for home in homes:
                            draw(module, home, line)
    return found


def knots(nodes, after):
    """The sets of nodes that are in circles with each other (Tarjan)."""
    index, low, stack, on, result = {}, {}, [], set(), []

    def visit(node):
        index[node] = low[node] = len(index)
        stack.append(node)
        on.add(node)
        for other in after.get(node, ()):
            if other not in index:
                visit(other)
                low[node] = min(low[node], low[other])
            elif other in on:
                low[node] = min(low[node], index[other])
        if low[node] == index[node]:
            knot = []
            while not knot or knot[-1] != node:
                knot.append(stack.pop())
                on.discard(knot[-1])
            if len(knot) > 1:
                result.append(sorted(knot))

    for node in nodes:
        if node not in index:
            visit(node)
    return result


def order(knot, weight):
    """The nodes from the top down, so that few arrows run back up (Eades, Lin and Smyth)."""
    left, top, bottom = set(knot), [], []
    while left:
        out = {n: sum(weight.get((n, m), 0) for m in left) for n in left}
        into = {n: sum(weight.get((m, n), 0) for m in left) for n in left}
        sinks, sources = [n for n in left if not out[n]], [n for n in left if not into[n]]
        if sinks:
            bottom.insert(0, min(sinks))
            left.remove(bottom[0])
        else:
            best = min(sources) if sources else min(left, key=lambda n: (into[n] - out[n], n))
            top.append(best)
            left.remove(best)
    return top + bottom


def way(start, end, after, within):
    """The shortest way from one node to another."""
    ways, seen = [[start]], {start}
    for path in ways:
        if path[-1] == end:
            return path
        for node in sorted(after.get(path[-1], ())):
            if node in within and node not in seen:
                seen.add(node)
                ways.append(path + [node])
    return []


def circles(root):
    """Each arrow that runs back, with the circle it closes: [(circle, [(file, line, text)], other arrows)]."""
    drawn = arrows(root)
    homes = {}
    for module in root.all():
        homes.setdefault(module.file, module.path)
    result = []
    folders = {path[:n] for path in homes.values() for n in range(len(path))}
    for folder in sorted(folders):
        front = "/".join(folder) or "crate"
        units = {}
        for (one, other), lines in drawn.items():
            ends = []
            for file in (one, other):
                path = homes[file]
                if path[: len(folder)] != folder:
                    break
                below = path[len(folder) : len(folder) + 1]
                ends.append("/".join(folder + below) if below else f"{front} itself")
            if len(ends) == 2 and ends[0] != ends[1]:
                units.setdefault(tuple(ends), []).append((one, other, lines))
        after = {}
        for one, other in units:
            after.setdefault(one, set()).add(other)
        weight = {pair: sum(len(lines) for _, _, lines in drawn) for pair, drawn in units.items()}
        for knot in knots(sorted({end for pair in units for end in pair}), after):
            place = {node: n for n, node in enumerate(order(knot, weight))}
            back = [pair for pair in sorted(units) if set(pair) <= set(knot) and place[pair[0]] > place[pair[1]]]
            for one, other in back:
                circle = [one] + way(other, one, after, set(knot))
                rest = [units[step][0] for step in zip(circle[1:], circle[2:])]
                result.append((circle, units[one, other], rest))
    return result


def shown(file, root, lines):
    return [f"{file.path.relative_to(root)}:{line}: {text}" for line, text in sorted(lines.items())]


def roots(crate):
    """The root files of a crate's programs and of its library."""
    source = crate / "src"
    files = [source / "lib.rs", source / "main.rs", *sorted(source.glob("bin/*.rs")), *sorted(source.glob("bin/*/main.rs"))]
    return [file for file in files if file.exists()]


def check(workspace, crate):
    """The report on a crate: one text for each arrow that runs back."""
    report = []
    for path in roots(workspace / crate):
        root = Module("", None, File(path))
        read_module(root, root.file, 0, len(root.file.tokens), path.parent)
        for circle, offending, rest in circles(root):
            text = [f"{crate}: an import runs back: {' -> '.join(circle)}"]
            places = [place for one, _, lines in offending for place in shown(one, workspace, lines)]
            text += [f"  {place}" for place in dict.fromkeys(places)]
            text.append("  which closes the circle with")
            for one, _, lines in rest:
                text.append(f"  {shown(one, workspace, lines)[0]}")
            report.append("\n".join(text))
    return report


# Each crate: what it shows, its files, and the places that are named as running back, or nothing.
FIXTURES = [
    (
        "one way",
        {
            "lib.rs": "mod a;\nmod b;\npub use a::A;\nfn f() { b::g() }",
            "a.rs": "pub struct A;",
            "b.rs": "use crate::A;\npub fn g() {}",
        },
        [],
    ),
    (
        "two files",
        {
            "lib.rs": "mod a;\nmod b;",
            "a.rs": "use crate::{\n    b::{self, B},\n};\npub struct A;\nimpl A { fn f(b: B) { b::g(); b::g() } }",
            "b.rs": "pub struct B;\npub fn g() {}\nfn h(_: crate::a::A) {}",
        },
        ["src/b.rs:3"],
    ),
    (
        "a child and its parent",
        {
            "lib.rs": "mod a;",
            "a/mod.rs": "mod child;\nmod other;\npub struct A;\nfn f() { child::g() }\nfn h() { child::g() }",
            "a/child.rs": "use super::A;\npub fn g() {}",
            "a/other.rs": "use super::A;",
        },
        ["src/a/child.rs:1"],
    ),
    (
        "two folders, without a circle of files",
        {
            "lib.rs": "mod a;\nmod b;",
            "a.rs": "mod low;\nmod high;",
            "a/low.rs": "pub struct Low;",
            "a/high.rs": "use crate::b::{\n    low::Low,\n    low::{Low as Lower},\n};",
            "b.rs": "pub mod low;\nmod high;",
            "b/low.rs": "pub struct Low;",
            "b/high.rs": "use super::super::a::low::Low;",
        },
        ["src/b/high.rs:1"],
    ),
    (
        "a facade makes no circle",
        {
            "lib.rs": "mod a;",
            "a.rs": "mod low;\nmod high;\npub use self::low::*;\npub use high::High;",
            "a/low.rs": "pub struct Low;\npub(in crate::a) struct Hidden;",
            "a/high.rs": "use super::Low;\nuse crate::a::{self as door, Hidden};\npub struct High(door::Low);",
        },
        [],
    ),
    (
        "what is no code, and what is for tests",
        {
            "lib.rs": "mod a;\nmod b;",
            "a.rs": "pub struct A;\n/// [`crate::b::B`]\nconst T: &str = \"use crate::b::B; \\\" crate::b::B\";\n"
            "/* use /* nested */ crate::b::B; */\nconst R: &str = r#\"crate::b::B \" crate::b::B\"#;\n"
            "const C: char = '\"'; // crate::b::B\nfn f<'a>(x: &'a str) {}\n"
            "#[cfg(test)]\nuse crate::b::B;\n#[cfg(test)]\nmod tests {\n    use crate::b::B;\n}\n"
            "#[cfg(all(test, unix))]\nfn g<A, C>() -> crate::b::B { loop {} }\n"
            "enum E { #[cfg(test)] X(crate::b::B), Y }\n#[cfg(test)]\nconst D: crate::b::B = crate::b::B { };",
            "b.rs": "use crate::a::A;\npub struct B;\n#[cfg(test)]\nmod tests;",
            "b/tests.rs": "use crate::a::A;",
        },
        [],
    ),
    (
        "what is not for tests",
        {
            "lib.rs": "mod a;\nmod b;",
            "a.rs": "pub struct A;\n#[cfg(not(test))]\nuse crate::b::B;",
            "b.rs": "use crate::a::A;\nfn f(_: crate::a::A) {}\npub struct B;",
        },
        ["src/a.rs:3"],
    ),
    (
        "one object behind two files",
        {
            "lib.rs": "mod a;\nmod b;",
            "a.rs": "pub struct A;\nimpl A {\n    pub fn f(&self) { self.g() }\n    pub fn h(&self) {}\n}",
            "b.rs": "use crate::a::A;\nimpl A {\n    pub fn g(&self) { self.h() }\n}",
        },
        ["src/a.rs:3"],
    ),
    (
        "one object behind two files, by a trait",
        {
            "lib.rs": "mod a;\nmod b;",
            "a.rs": "pub struct A;\nimpl<'a, T: Into<A>> From<T> for A {\n    fn from(_: T) -> A { A.h(); Self::g() }\n}",
            "b.rs": "use crate::a::A;\nimpl A {\n    pub fn g() -> A { todo!() }\n    pub fn h(&self) { let a: crate::a::A; }\n}",
        },
        ["src/a.rs:3"],
    ),
    (
        "a circle of three, and modules in braces",
        {
            "lib.rs": "mod a;\nmod b;\nmod c {\n    use crate::a::A;\n    pub mod inner;\n}",
            "a.rs": "pub struct A;\nuse crate::b::{B, C};",
            "b.rs": "pub struct B;\npub struct C;\nuse crate::c::inner::{I, J};",
            "c/inner.rs": "pub struct I;\npub struct J;\nuse super::super::a::A;",
        },
        ["src/c/inner.rs:3"],
    ),
]


def self_test():
    for title, files, expected in FIXTURES:
        with tempfile.TemporaryDirectory() as folder:
            workspace = pathlib.Path(folder)
            for name, text in files.items():
                at = workspace / "crate" / "src" / name
                at.parent.mkdir(parents=True, exist_ok=True)
                at.write_text(text + "\n")
            named = []
            for report in check(workspace, "crate"):
                offending = report.split("  which closes")[0].splitlines()[1:]
                named += [":".join(line.strip().split(":")[:2]).removeprefix("crate/") for line in offending]
            if named != expected:
                print(f"modules: self-test `{title}`: {named} instead of {expected}", file=sys.stderr)
                print(textwrap.indent("\n".join(check(workspace, "crate")), "  "), file=sys.stderr)
                return 1
    return 0


def main(arguments):
    if arguments == ["--self-test"]:
        return self_test()
    workspace = pathlib.Path(__file__).resolve().parent.parent
    members = tomllib.loads((workspace / "Cargo.toml").read_text())["workspace"]["members"]
    crates = arguments or [member for member in members if member not in NOT_YET]
    report = [text for crate in crates for text in check(workspace, crate)]
    if report:
        print("modules: " + "\nmodules: ".join(report), file=sys.stderr)
        return 1
    print(f"modules: no import runs back in {', '.join(crates)}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
