# SPDX-License-Identifier: Apache-2.0
# bash completion for cowire(1). Words come from the command's own help.

# The subcommands of "cowire" followed by these words.
_cowire_subcommands() {
  LC_ALL=C "$1" "${@:2}" --help 2>/dev/null |
    awk '/^[A-Z]/ { inside = $0 == "Subcommands:"; next } inside && NF { print $1 }'
}

_cowire() {
  local cur prev words cword
  _init_completion -n : || return

  local path=() word
  for word in "${words[@]:1:cword-1}"; do
    [[ $(_cowire_subcommands "$1" "${path[@]}") =~ (^|$'\n')"$word"($|$'\n') ]] || break
    path+=("$word")
  done

  case $prev in
    --to-file | --payload-file | --config | --via | --intake | --batch | -b)
      _filedir
      return
      ;;
    --interface | --device | --multicast-interface)
      _available_interfaces -a
      return
      ;;
    --mode)
      COMPREPLY=($(compgen -W "auto zero-copy copy generic kernel" -- "$cur"))
      return
      ;;
    --when-full)
      COMPREPLY=($(compgen -W "wait fail shed-oldest" -- "$cur"))
      return
      ;;
  esac

  if [[ $cur == -* ]]; then
    COMPREPLY=($(compgen -W "$(_parse_help "$1" "${path[*]} --help")" -- "$cur"))
  elif ((${#path[@]} == cword - 1)); then
    COMPREPLY=($(compgen -W "$(_cowire_subcommands "$1" "${path[@]}")" -- "$cur"))
    [[ ${path[*]} != doctor ]] || _available_interfaces -a
  fi
} && complete -F _cowire cowire
