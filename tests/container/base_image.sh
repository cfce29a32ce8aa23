#!/usr/bin/env bash
# An image with Debian's Python 3.11, without a registry.  base_image.sh TAG
set -euo pipefail
command -v debootstrap >/dev/null || {
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends debootstrap >/dev/null
}
root=$(mktemp -d)
trap 'rm -rf "$root"' EXIT
debootstrap --variant=minbase --include=python3-minimal,python3-venv,ca-certificates \
    bookworm "$root" http://deb.debian.org/debian >/dev/null
tar -C "$root" --exclude=./var/cache --exclude=./var/lib/apt --exclude=./usr/share/doc --exclude=./usr/share/locale \
    -c . | docker import - "$1" >/dev/null
