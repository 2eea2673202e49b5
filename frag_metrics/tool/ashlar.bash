# SPDX-License-Identifier: MIT
# Completion of ashlar(1) for bash.

_ashlar_arenas() {
    ashlar shm ls 2>/dev/null | awk -v prefix="$1" 'NR > 1 { print prefix $NF }'
}

_ashlar_targets() {
    # Processes that have the library mapped, shared arenas, and files.
    local maps pid
    for maps in /proc/[0-9]*/maps; do
        if grep -qs /libashlar.so "$maps"; then
            pid=${maps#/proc/}
            printf '%s\n' "${pid%/maps}"
        fi
    done
    _ashlar_arenas shm:
    compgen -f -- "$1"
}

_ashlar() {
    local word=${COMP_WORDS[COMP_CWORD]} before=${COMP_WORDS[COMP_CWORD - 1]} verb=${COMP_WORDS[1]}
    local options=
    if [ "$COMP_CWORD" -eq 1 ]; then
        COMPREPLY=($(compgen -W "report doctor map top diff export sites trim shm run serve --help --version" -- "$word"))
        return
    fi
    case $before in
    --html | --report | --record)
        COMPREPLY=($(compgen -f -- "$word"))
        return
        ;;
    --every | --wait)
        COMPREPLY=($(compgen -W "100ms 1s 10s 1m" -- "$word"))
        return
        ;;
    --listen)
        COMPREPLY=($(compgen -W "127.0.0.1:9189" -- "$word"))
        return
        ;;
    esac
    case $verb in
    report) options="--json --html" ;;
    doctor | map | diff) options="--json" ;;
    top) options="--json --every --count" ;;
    export) options="--prometheus --json --csv" ;;
    sites) options="--json --folded --pprof" ;;
    trim) options="--json --wait" ;;
    shm)
        options="--json"
        [ "${COMP_WORDS[2]}" = rm ] && options="--json --force"
        ;;
    run) options="--every --report --record --json --" ;;
    serve) options="--json --listen" ;;
    esac
    case $word in
    -*) COMPREPLY=($(compgen -W "$options --help" -- "$word")) ;;
    *)
        if [ "$verb" = run ]; then
            COMPREPLY=($(compgen -c -- "$word"))
        elif [ "$verb" = shm ] && [ "$COMP_CWORD" -eq 2 ]; then
            COMPREPLY=($(compgen -W "ls stat check recover rm" -- "$word"))
        elif [ "$verb" = shm ]; then
            COMPREPLY=($(compgen -W "$(_ashlar_arenas)" -- "$word") $(compgen -f -- "$word"))
        else
            COMPREPLY=($(compgen -W "$(_ashlar_targets "$word")" -- "$word"))
        fi
        ;;
    esac
}
complete -F _ashlar ashlar
