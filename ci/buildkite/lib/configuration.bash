# shellcheck shell=bash
# The plugin's configuration, which the agent hands over in variables of the environment. Both hooks
# read this file. `arguments` collects arguments of relay; `files` is the job's folder of files.

# The agent names the plugin after its folder or repository, so the prefix is not always RELAY.
prefix="BUILDKITE_PLUGIN_${BUILDKITE_PLUGIN_NAME:-RELAY}"
# shellcheck disable=SC2034
files="${TMPDIR:-/tmp}/relay-${BUILDKITE_JOB_ID:?}"
arguments=()

# Prints one property.
configured() {
  local variable="${prefix}_$1"
  printf %s "${!variable:-}"
}

# Appends a flag with a property, if it is there.
read_flag() {
  local value
  value=$(configured "$2")
  [ -z "$value" ] || arguments+=("$1" "$value")
}

# What `relay deploy` and `relay cancel` have in common.
read_place() {
  local key
  key=$(configured KEY)
  # Without a key in the configuration and in the environment, the job's own token signs.
  if [ -n "$key" ] || [ -z "${RELAY_SIGNING_KEY:-}" ]; then
    arguments+=(--key "${key:-oidc}")
  fi
  read_flag --config CONFIG
}

# Appends a flag for each item of a list (NAME=VALUE), or of a map. The agent puts the name of a
# map's item into a variable's name in upper case; names of relay have no upper case.
read_pairs() {
  local variable name
  while IFS= read -r variable; do
    name="${variable#"${prefix}_$2_"}"
    case "$name" in
      "$variable") ;;
      *[!0-9]*) arguments+=("$1" "$(printf %s "$name" | tr '[:upper:]' '[:lower:]')=${!variable}") ;;
      *) arguments+=("$1" "${!variable}") ;;
    esac
  done < <(compgen -e | sort)
}
