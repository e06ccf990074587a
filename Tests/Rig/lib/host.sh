# shellcheck shell=bash
# What build and run share on the host: where things are cached and how progress is said.
# shellcheck disable=SC2034 # used by those that source this

rig=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
repository=$(cd "$rig/../.." && pwd)
# Debian's release: hypervisor, toolstack, dom0 and the guests' kernel all come from it.
suite=${XENBACK_RIG_SUITE:-bookworm}
caches=${XENBACK_RIG_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/xenback-rig}
cache=$caches/$suite

# Progress goes to stderr so that a command's output stays usable.
say() { printf 'rig: %s\n' "$*" >&2; }
die() {
    printf 'rig: %s\n' "$*" >&2
    exit 1
}
