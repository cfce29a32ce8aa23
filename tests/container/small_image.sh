#!/usr/bin/env bash
# An image of Debian's static busybox alone.  small_image.sh TAG '["/busybox", "sleep", "1000"]'
set -euo pipefail
[[ -x /bin/busybox || -x /usr/bin/busybox ]] || {
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends busybox-static >/dev/null
}
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cp "$(command -v busybox)" "$folder/busybox"
echo 'root:x:0:0::/:' >"$folder/passwd"
printf 'FROM scratch\nCOPY busybox /busybox\nCOPY passwd /etc/passwd\nENTRYPOINT %s\n' "$2" >"$folder/Dockerfile"
DOCKER_BUILDKIT=0 docker build -q -t "$1" "$folder" >/dev/null
