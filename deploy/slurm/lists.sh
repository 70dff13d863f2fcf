#!/usr/bin/env bash
# Shares the slides below a folder out into N lists of nearly equal bytes: lists.sh FOLDER N LISTS
set -euo pipefail

folder=${1:?"usage: lists.sh FOLDER N LISTS"}
n=${2:?"usage: lists.sh FOLDER N LISTS"}
lists=${3:?"usage: lists.sh FOLDER N LISTS"}

mkdir -p "$lists"
for ((i = 0; i < n; i++)); do : > "$lists/$i.txt"; done
# The largest first, each to the list with the fewest bytes so far.
find -L "$(realpath "$folder")" -type f \
    \( -iname '*.svs' -o -iname '*.tif' -o -iname '*.tiff' -o -iname '*.ndpi' -o -iname '*.mrxs' -o -iname '*.scn' -o -iname '*.bif' \) \
    -printf '%s\t%p\n' | sort -rn | awk -F'\t' -v n="$n" -v lists="$lists" '
    { best = 0; for (i = 1; i < n; i++) if (bytes[i] < bytes[best]) best = i
      bytes[best] += $1; print $2 >> (lists "/" best ".txt") }'
wc -l "$lists"/*.txt
