#!/bin/sh
# Ends with what is missing, before anything is built:  e2e/needs.sh NAME TOOL...
name=$1
shift
for tool; do
	command -v "$tool" >/dev/null || { echo "$name: $tool is not installed; needed are: $*" >&2; exit 1; }
done
