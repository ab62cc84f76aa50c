# The smoke suite: what must work on every kernel, whatever is chosen there. Runs in a guest with
# busybox and nothing else: smoke.sh DIRECTORY TIER
#
# Knows: the server's command line, its API, which answers are right. Must not know: how the guest was
# booted, or its kernel. It prints, for verdicts.py:
#
#     kernel RELEASE                the kernel that answers
#     checks NAME…                  those that will be run
#     log LINE, metric LINE         what the server says of what it chose
#     ok NAME SECONDS, failed NAME SECONDS: WHY
guest=$1
tier=$2
# shellcheck source=scripts/kernels/guest/wire.sh
. "$guest/wire.sh"

CHECKS="doctor start publish subscribers churn slow_event slow_value resume hostile drain journal"
SUBSCRIBERS=500
# One processor and two reactors: every message crosses between rings, and wakes the other one.
REACTORS=2

fail() {
    echo "$*"
    exit 1
}

# Starts a server, and waits until it takes connections: serve FLAG…
serve() {
    rm -f server.status
    (
        # shellcheck disable=SC2016  # for the inner shell
        sh -c 'echo $$ >server.pid; exec "$@"' sh "$guest/uringcast" serve \
            --kernel-tier "$tier" --reactors $REACTORS "$@" >server.out 2>server.log
        echo $? >server.status
    ) &
    # A machine that has just been booted may have no random numbers for ten seconds.
    within 40 ready_or_ended
    [ ! -e server.status ] || fail "the server ended with $(cat server.status): $(tail -n 1 server.log)"
    get /readyz >/dev/null || fail "not ready in time: $(tail -n 1 server.log)"
}

ready_or_ended() { [ -e server.status ] || get /readyz >/dev/null 2>&1; }

# What this machine offers, asked before anything else: a server could run, and io_uring is allowed.
check_doctor() {
    local said
    said=$("$guest/uringcast" doctor --kernel-tier "$tier") || fail "ended with $?: $said"
    echo "$said" | grep -q 'io_uring .*allowed' || fail "does not say that io_uring is allowed: $said"
}

check_start() {
    # Small buffers, so that who does not read is slow soon.
    serve --send-buffer 16KiB --lag-bytes-max 512KiB --close-timeout 2s \
        --topic 'value.>:kind=value' --topic 'kept.>:history-messages=100'
    grep -q '^listening data=' server.out || fail "says nowhere what it listens on: $(cat server.out)"
    # What was chosen: the judge reads it from these.
    sed -n 's/^.* \(reactor .*\)/log \1/p' server.log
    get /metrics | sed -n 's/^uringcast_\(ring_feature\|ring_tier\|build_info\)/metric &/p'
}

# Idle for a while, then spoken to; then a publication by HTTP, which crosses to the shards.
check_publish() {
    session subscriber subscribe_then_ping
    within 10 got subscriber '"op":"pong","id":7' || fail "no pong after a while of silence"
    publish one.topic '{"n":1}' >answer || fail "the POST was refused"
    grep -q '"seq":1' answer || fail "answered $(cat answer)"
    within 10 got subscriber '"data":{"n":1}' || fail "published, but the subscriber did not get it"
    hang_up subscriber
    within 10 connections_are 0 || fail "who hung up is still counted"
}

subscribe_then_ping() {
    upgrade '/ws?topics=one.*'
    sleep 2
    text '{"op":"ping","id":7}'
}

connections() { metric 'connections{'; }
connected_at_least() { [ "$(connections)" -ge "$1" ]; }
connections_are() { [ "$(connections)" -eq "$1" ]; }

check_subscribers() { fan_out bench --subscribers $SUBSCRIBERS --rate 5 --duration 3s; }

# Who comes and goes has its slot, its descriptor and its buffers back each time.
check_churn() { fan_out churn --subscribers 50 --churn 40 --rate 10 --duration 3s; }

# A run of loadgen without loss; deliveries are counted here too where all stay from the beginning.
fan_out() {
    local topic=$1 published delivered
    shift
    "$guest/loadgen" fanout --quiet --json report.json --warmup 1s --connect-rate 500 \
        --url "ws://127.0.0.1:9001/raw/$topic" --publish-url "ws://127.0.0.1:9003/publish/$topic" "$@" ||
        fail "loadgen ended with $?$(faults)"
    grep -q '"clean": true' report.json || fail "the run was not clean$(faults)"
    published=$(figure report.json published)
    delivered=$(figure report.json messages)
    [ "${published:-0}" -gt 0 ] || fail "nothing was published"
    if [ "$(figure report.json churning)" = 0 ]; then
        [ "$delivered" = $((published * $(figure report.json subscribers))) ] ||
            fail "$delivered deliveries of $published publications"
    fi
}

faults() {
    [ ! -e report.json ] || tr -d '\n ' <report.json | sed -n 's/.*"faults":{\([^}]*\)}.*/: \1/p'
}

# Two that never read are closed with 1013; the others get everything.
check_slow_event() {
    fan_out slow --subscribers 5 --stalled 2 --receive-buffer 4096 --size 8192 --rate 25 --duration 4s
    within 5 slow_closes_are 2 || fail "$(slow_closes) were closed with 1013, not 2"
}

slow_closes() { metric closed_total 'code="1013",reason="slow"'; }
slow_closes_are() { [ "$(slow_closes)" -eq "$1" ]; }

# One that stops reading misses values, and has the newest soon after it reads again.
check_slow_value() {
    local last received
    stalled_session late upgrade '/ws?topics=value.one'
    within 10 connections_are 1 || fail "not connected"
    fan_out value.one --subscribers 2 --size 16384 --rate 20 --duration 4s
    last=$(figure report.json published)
    wake late
    within 10 got late "\"seq\":$last," || fail "the newest, number $last, did not arrive"
    received=$(received late | grep -o '"topic":"value.one","seq"' | wc -l)
    [ "$received" -lt "$last" ] || fail "it was not slow: nothing was skipped"
    [ "$(metric skipped_messages_total 'kind="value"')" -gt 0 ] || fail "skipping was not counted"
    hang_up late
}

check_resume() {
    local number epoch
    for number in 1 2 3 4 5; do
        publish kept.one "{\"n\":$number}" >answer || fail "publication $number was refused"
    done
    epoch=$(epoch_of answer)
    resumed_from kept.one "$epoch" 2 '"data":{"n":5}'
    ! got resumed '"data":{"n":2}' || fail "number 2 came again"
    got resumed '"data":{"n":3}' && got resumed '"data":{"n":4}' || fail "3 or 4 is missing"
    hang_up resumed
}

epoch_of() { sed -n 's/.*"epoch":"\([^"]*\)".*/\1/p' "$1"; }

# Comes back as one who had everything up to a number: resumed_from TOPIC EPOCH SEQ LAST
resumed_from() {
    session resumed resume "$1" "$2" "$3"
    within 10 got resumed '"op":"subscribed"' || fail "no answer to the subscribe"
    got resumed '"recovered":true' || fail "not recovered: $(received resumed | grep '"op"')"
    within 10 got resumed "$4" || fail "the last one missed did not come"
}

resume() {
    upgrade /ws
    text "{\"op\":\"subscribe\",\"topics\":[\"$1\"],\"resume\":{\"$1\":{\"epoch\":\"$2\",\"seq\":$3}}}"
}

# What breaks the rules is refused, closed and counted, and nobody else notices.
check_hostile() {
    session bystander upgrade '/ws?topics=calm'
    within 10 got bystander '101 Switching Protocols' || fail "the bystander is not connected"

    session garbage printf '\200\201\377\000nonsense\r\n\r\n'
    within 10 ended garbage || fail "garbage was not hung up on"
    got garbage 'HTTP/1.1 400' || fail "garbage was answered with $(received garbage | head -n 1)"
    [ "$(metric handshakes_total 'result="400"')" -eq 1 ] || fail "garbage was not counted"

    offends unmasked 1002 unmasked
    offends oversize 1009 too_big
    offends reserved 1002 reserved_bits

    session half printf 'GET /ws HT'
    sleep 0.2
    hang_up half

    publish calm '"still here"' >answer || fail "the server does not publish any more"
    within 10 got bystander '"data":"still here"' || fail "the bystander noticed"
    ! ended bystander || fail "the bystander was disconnected"
    hang_up bystander
}

# offends NAME CODE KIND
offends() {
    session "$1" "send_$1"
    within 10 closed "$1" "$2" || fail "$1 was not closed with $2"
    hang_up "$1"
    [ "$(metric offences_total "kind=\"$3\"")" -eq 1 ] || fail "$1 was not counted"
}

send_unmasked() {
    upgrade /ws
    bytes 129 2
    printf '{}'
}

# The head of a message of 16 MiB.
send_oversize() {
    upgrade /ws
    bytes 129 255 0 0 0 0 1 0 0 0 0 0 0 0
}

send_reserved() {
    upgrade /ws
    bytes 177 130 0 0 0 0
    printf '{}'
}

# SIGTERM: all are told, closed with 1001, and the server ends with 0.
check_drain() {
    local holder
    "$guest/loadgen" connect --quiet --json held.json --connections 100 --connect-rate 500 --hold 60s \
        >/dev/null 2>&1 &
    holder=$!
    session told upgrade '/ws?topics=one.*'
    within 20 connected_at_least 101 || fail "$(connections) of 101 are connected"
    stop TERM
    [ "$(cat server.status)" = 0 ] || fail "the server ended with $(cat server.status)"
    got told '"op":"goaway"' || fail "no goaway"
    closed told 1001 || fail "no Close with 1001"
    # It would hold what it no longer has to the end of its time.
    kill -INT $holder
    within 20 test -s held.json || fail "loadgen did not report"
    tr -d '\n ' <held.json | grep -q '"closes":{"close1001":100}' ||
        fail "the others were closed with $(tr -d '\n ' <held.json | grep -o '"closes":{[^}]*}')"
    ! grep -q -E 'panicked|this is a bug|ERROR' server.log || fail "$(grep -E 'panicked|bug|ERROR' server.log)"
}

# stop SIGNAL
stop() {
    kill "-$1" "$(cat server.pid)"
    within 15 test -s server.status || fail "the server does not end on $1"
}

# Files, and a port that is taken up again: history survives kill -9.
check_journal() {
    local epoch
    [ -e server.status ] || stop KILL
    serve --journal "$PWD/journal" --journal-fsync always --topic 'kept.>:history-messages=100'
    publish kept.one '{"n":1}' >answer && publish kept.one '{"n":2}' >>answer || fail "publishing was refused"
    epoch=$(epoch_of answer | tail -n 1)
    within 5 journalled 2 || fail "$(metric journal_records_total) records were written"
    stop KILL
    # What a ring held is let go of a moment after its process has ended.
    within 10 port_is_free || fail "the port of a server that was killed stays taken"
    serve --journal "$PWD/journal" --topic 'kept.>:history-messages=100'
    resumed_from kept.one "$epoch" 1 '"data":{"n":2}'
    hang_up resumed
    stop TERM
    [ "$(cat server.status)" = 0 ] || fail "the server ended with $(cat server.status)"
}

port_is_free() { ! netstat -l -t -n | grep -q ":$DATA "; }
journalled() { [ "$(metric journal_records_total)" -ge "$1" ]; }

# Runs one check in a shell of its own, so that its first failure ends it and nothing else.
run() {
    local began=$(date +%s) outcome=ok
    ("check_$1") >said 2>&1 || outcome=failed
    grep -E '^(log|metric) ' said
    if [ $outcome = ok ]; then
        echo "ok $1 $(($(date +%s) - began))"
    else
        echo "failed $1 $(($(date +%s) - began)): $(tail -n 1 said)"
        failed=1
    fi
}

failed=0
echo "kernel $(uname -r)"
echo "checks $CHECKS"
for each in $CHECKS; do
    run "$each"
    # Nothing else can be said of a server that does not start.
    [ "$each" != start ] || [ $failed = 0 ] || exit 1
done
if [ $failed -ne 0 ]; then
    # Each line is marked, so that nothing of it is taken for the suite's own.
    sed 's/^/server: /' server.log | tail -n 40
fi
exit $failed
