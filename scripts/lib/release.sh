# SPDX-License-Identifier: Apache-2.0
# For scripts that run the release build: source it at the root of the repository.

# build_release WHO PACKAGES TARGET...: installs what it takes, builds; the compiler speaks only if that fails.
build_release() {
  local who=$1 packages=$2
  shift 2
  scripts/setup "$packages"
  export CMAKE_CXX_COMPILER_LAUNCHER=ccache
  echo "$who: building" >&2
  build_log=$(mktemp)
  trap 'rm -f "$build_log"' EXIT
  { cmake --preset release && cmake --build --preset release --target "$@"; } >"$build_log" 2>&1 || {
    cat "$build_log" >&2
    echo "$who: the build failed" >&2
    exit 1
  }
}

# as_root COMMAND...: runs it, by sudo where that is needed.
as_root() {
  if ((EUID != 0)); then sudo -- "$@"; else "$@"; fi
}
