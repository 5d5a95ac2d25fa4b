#!/usr/bin/env python3
"""Compares a CycloneDX file with what cargo links: `cargo tree ... --format '{p}' | sbom.py FILE PROGRAM`.

Each crate of the tree is in it, nothing is in it that Cargo.lock does not have, each has its purl and a licence, and what comes
from a registry the hash of the lock file. Before that it takes out where it was built: cargo names our own crates by their
folders. Ends with what is wrong.
"""

import json
import os
import re
import sys
import tomllib


def purl(each):
    """What a crate is called everywhere."""
    return f"pkg:cargo/{each['name']}@{each['version']}"


def portable(bom):
    """The same with names for our own crates that no folder is in: `path+file:///home/a/berth/ccm#berth-ccm@0.1.0` is their purl."""
    subject = bom.get("metadata", {}).get("component", {})
    crates = [subject, *bom.get("components", [])]
    names = {each["bom-ref"]: purl(each) for each in crates if each.get("bom-ref", "").startswith("path+file:")}

    def renamed(value):
        if isinstance(value, dict):
            return {key: renamed(each) for key, each in value.items()}
        if isinstance(value, list):
            return [renamed(each) for each in value]
        if not isinstance(value, str):
            return value
        # What is built of a crate is called by its id and what it is: `... bin-target-0`.
        crate, space, target = value.partition(" ")
        value = names.get(crate, crate) + space + target
        return re.sub(r"\?download_url=file://[^#]*", "", value)

    return renamed(bom)


def paths(value, root):
    """The texts that tell where it was built."""
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        return [path for each in value for path in paths(each, root)]
    return [value] if isinstance(value, str) and ("file:" in value or root in value) else []


def flaws(bom, program, linked, locked, root):
    """What is wrong with `bom`: `linked` are pairs of name and version, `locked` gives their hashes, None for our own crates, and
    `root` is where it was built."""
    found = [f"it tells where it was built: {path}" for path in paths(bom, root)]
    head = (bom.get("bomFormat"), bom.get("specVersion"))
    if head != ("CycloneDX", "1.5"):
        found.append(f"it is {head}, not CycloneDX 1.5")
    subject = bom.get("metadata", {}).get("component", {})
    if subject.get("name") != program:
        found.append(f"it is about {subject.get('name')}, not {program}")
    components = {(each["name"], each["version"]): each for each in bom.get("components", [])}
    missing = linked - components.keys() - {(program, subject.get("version"))}
    found += [f"{name} {version} is linked and missing" for name, version in sorted(missing)]
    for (name, version), each in sorted(components.items()):
        if (name, version) not in locked:
            found.append(f"{name} {version} is not in Cargo.lock")
        elif digest := locked[name, version]:
            if {"alg": "SHA-256", "content": digest} not in each.get("hashes", []):
                found.append(f"{name} {version} has another hash than in Cargo.lock")
        if each.get("purl") != purl(each):
            found.append(f"{name} {version} has the purl {each.get('purl')}")
        if not each.get("licenses"):
            found.append(f"{name} {version} has no licence")
    known = {each["bom-ref"] for each in [subject, *components.values()] if "bom-ref" in each}
    for edge in bom.get("dependencies", []):
        unknown = {edge["ref"], *edge.get("dependsOn", [])} - known
        found += [f"{ref} is depended on and no component" for ref in sorted(unknown)]
    return found


def main():
    file, program = sys.argv[1:]
    with open(file, encoding="utf-8") as text:
        bom = portable(json.load(text))
    with open(file, "w", encoding="utf-8") as text:
        json.dump(bom, text, indent=2, ensure_ascii=False)
        text.write("\n")
    with open("Cargo.lock", "rb") as text:
        packages = tomllib.load(text)["package"]
    locked = {(each["name"], each["version"]): each.get("checksum") for each in packages}
    words = [line.split() for line in sys.stdin]
    linked = {(each[0], each[1].removeprefix("v")) for each in words}
    found = flaws(bom, program, linked, locked, os.getcwd())
    if not linked:
        found.append("cargo tree said nothing")
    for flaw in found:
        print(f"sbom: {file}: {flaw}", file=sys.stderr)
    if found:
        sys.exit(1)
    print(f"sbom: {file} has the {len(linked)} crates that {program} is made of")


main()
