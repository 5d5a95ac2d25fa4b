#!/usr/bin/env python3
"""Compares a CycloneDX file with what cargo links: `cargo tree ... --format '{p}' | sbom.py FILE PROGRAM`.

Each crate of the tree is in it, nothing is in it that Cargo.lock does not have, and what comes from a registry has the hash of
the lock file, a purl and a licence. Ends with what is wrong.
"""

import json
import sys
import tomllib


def flaws(bom, program, linked, locked):
    """What is wrong with `bom`: `linked` are pairs of name and version, `locked` gives their hashes, None for our own crates."""
    found = []
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
            if each.get("purl") != f"pkg:cargo/{name}@{version}":
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
        bom = json.load(text)
    with open("Cargo.lock", "rb") as text:
        packages = tomllib.load(text)["package"]
    locked = {(each["name"], each["version"]): each.get("checksum") for each in packages}
    words = [line.split() for line in sys.stdin]
    linked = {(each[0], each[1].removeprefix("v")) for each in words}
    found = flaws(bom, program, linked, locked)
    if not linked:
        found.append("cargo tree said nothing")
    for flaw in found:
        print(f"sbom: {file}: {flaw}", file=sys.stderr)
    if found:
        sys.exit(1)
    print(f"sbom: {file} has the {len(linked)} crates that {program} is made of")


main()
