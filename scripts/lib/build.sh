# SPDX-License-Identifier: Apache-2.0
# For scripts that build what they run: source it at the root of the repository.

# build_preset WHO PRESET PACKAGES TARGET...: installs what it takes, builds; the compiler speaks only if that fails.
build_preset() {
  local who=$1 preset=$2 packages=$3
  shift 3
  scripts/setup "$packages"
  export CMAKE_CXX_COMPILER_LAUNCHER=ccache
  echo "$who: building" >&2
  build_log=$(mktemp)
  trap 'rm -f "$build_log"' EXIT
  { cmake --preset "$preset" && cmake --build --preset "$preset" --target "$@"; } >"$build_log" 2>&1 || {
    cat "$build_log" >&2
    echo "$who: the build failed" >&2
    exit 1
  }
}

# as_root COMMAND...: runs it, by sudo where that is needed.
as_root() {
  if ((EUID != 0)); then sudo -- "$@"; else "$@"; fi
}
