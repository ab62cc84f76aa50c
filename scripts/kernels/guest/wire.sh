# WebSocket and HTTP by hand, with busybox: connections that do what they are told and judge nothing.
# Read by smoke.sh.
#
# Knows: a few bytes of RFC 6455, the server's ports, where its figures are. Must not know: which
# answers are right.

DATA=9001
ADMIN=9002

# Bytes that ask for an upgrade: upgrade PATH
upgrade() {
    printf 'GET %s HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n' "$1"
    printf 'Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n'
}

# A text message, masked with zeros, which leave its bytes as they are: text MESSAGE
text() {
    local length=${#1}
    if [ "$length" -lt 126 ]; then
        bytes 129 $((128 + length)) 0 0 0 0
    else
        bytes 129 254 $((length / 256)) $((length % 256)) 0 0 0 0
    fi
    printf '%s' "$1"
}

bytes() {
    local each
    for each; do
        # shellcheck disable=SC2059  # the format is the byte
        printf "\\$(printf '%03o' "$each")"
    done
}

# Opens a connection and sends what COMMAND prints: session NAME COMMAND…
# What comes is in NAME.got, piece by piece. It stays open until the server ends it (`ended NAME`) or
# `hang_up NAME` does.
session() {
    local name=$1
    shift
    rm -f "$name.ended"
    : >"$name.got"
    { "$@"; sleep 600; } 2>/dev/null | dial "$name" 2>/dev/null >"$name.got" &
}

# The same for one that reads nothing (beyond a pipe's 64 KiB) until `wake NAME`.
stalled_session() {
    local name=$1
    shift
    rm -f "$name.ended" "$name.wake"
    : >"$name.got"
    { "$@"; sleep 600; } 2>/dev/null | dial "$name" 2>/dev/null | {
        until [ -e "$name.wake" ]; do sleep 0.1; done
        cat >"$name.got"
    } &
}

dial() {
    # shellcheck disable=SC2016  # for the inner shell
    sh -c 'echo $$ >"$1.pid"; exec nc 127.0.0.1 "$2"' sh "$1" "$DATA"
    : >"$1.ended"
}

# What has come, without zero bytes: busybox's grep takes one for the end of the line.
received() { tr -d '\0' <"$1.got"; }

wake() { : >"$1.wake"; }
ended() { [ -e "$1.ended" ]; }
hang_up() { kill "$(cat "$1.pid")"; }

# Whether the text, or the Close frame with the code, has come: got NAME TEXT, closed NAME CODE
got() { received "$1" | grep -q -F -e "$2"; }
closed() {
    od -An -v -tx1 "$1.got" | tr -d '\n' |
        grep -q " 88 .. $(printf '%02x %02x' $(($2 / 256)) $(($2 % 256)))"
}

# The admin port: get PATH, publish TOPIC PAYLOAD. (Debian's static wget dies of its own -T.)
get() { timeout 10 wget -q -O - "http://127.0.0.1:$ADMIN$1"; }
publish() { timeout 10 wget -q -O - --post-data "$2" "http://127.0.0.1:$ADMIN/v1/topics/$1"; }

# A figure of /metrics, its shards and labels together: metric NAME [LABELS]
metric() {
    get /metrics | awk -v name="uringcast_$1" -v label="${2-}" '
        index($0, name) == 1 && (label == "" || index($0, label)) { sum += $NF }
        END { print sum + 0 }'
}

# The first number of that name in a report of loadgen: figure FILE KEY
figure() { sed -n "s/^ *\"$2\": \([0-9][0-9]*\),*\$/\1/p" "$1" | head -n 1; }

# Tries a command until it succeeds, for some seconds: within SECONDS COMMAND…
within() {
    local end=$(($(date +%s) + $1))
    shift
    until "$@"; do
        [ "$(date +%s)" -lt "$end" ] || return 1
        sleep 0.1
    done
}
