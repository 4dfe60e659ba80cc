#!/bin/sh
# Durable jobs a second beside other queues, on this machine, in one run, in turns; and what differs between them.
#
#   sh tests/load/queues.sh [JOBS] [ROUNDS]
#
# Each other queue is set up as its own documentation says is fastest, and so that what it acknowledged is on the disk:
# jobs are enqueued in batches of 1,000, run, and recorded as done; the clock stops when nothing is left to record.
# Installs what it needs from Debian, npm and crates.io where that is allowed, into target/queues.
set -eu

JOBS=${1:-50000} ROUNDS=${2:-3} BATCH=1000 AT_ONCE=1000
BULLMQ=6.7.0 BULLMQ_AT_ONCE=100 IOREDIS=5.11.1 GRAPHILE=0.18.0

root=$(cd "$(dirname "$0")/../.." && pwd)
scratch=$root/target/queues
mkdir -p "$scratch"

# need PROGRAM PACKAGE
need() {
    command -v "$1" >/dev/null 2>&1 && return
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
        # No service of the machine's own is started: the one that is measured has a folder of its own.
        RUNLEVEL=1 apt-get install --yes --no-install-recommends "$2" >&2 ||
            { apt-get update >&2 && RUNLEVEL=1 apt-get install --yes --no-install-recommends "$2" >&2; }
    else
        echo "install $1 (Debian: apt-get install $2)" >&2
        exit 1
    fi
}
need node nodejs
need npm npm
need redis-server redis-server
PATH=$PATH:$(ls -d /usr/lib/postgresql/*/bin 2>/dev/null | sort -V | tail -n 1)
need initdb postgresql
PATH=$PATH:$(ls -d /usr/lib/postgresql/*/bin | sort -V | tail -n 1)

(cd "$root" && cargo build --release) >&2
CARGO_TARGET_DIR=$scratch/apalis cargo build --release --locked --manifest-path "$root/tests/load/apalis/Cargo.toml" >&2
cp "$root/tests/load/bullmq.mjs" "$root/tests/load/graphile.mjs" "$scratch/"
npm install --no-audit --no-fund --silent --prefix "$scratch" "bullmq@$BULLMQ" "ioredis@$IOREDIS" "graphile-worker@$GRAPHILE" >&2

# One disk for all. Servers that are measured end with this script, however it ends.
dir=$(mktemp -d /var/tmp/wharf-queues-XXXXXX)
chmod 755 "$dir"
redis= postgres=
# PostgreSQL does not run as root.
as_owner=
[ "$(id -u)" != 0 ] || as_owner="setpriv --reuid postgres --regid postgres --clear-groups"
finish() {
    for server in $redis $postgres; do
        kill -INT "$server" 2>/dev/null && wait "$server" || true
    done
    rm -rf "$dir"
}
trap finish EXIT
trap 'exit 1' INT TERM HUP

mkdir "$dir/redis" "$dir/pg"
redis-server --port 0 --unixsocket "$dir/redis/socket" --dir "$dir/redis" --appendonly yes --appendfsync always \
    --save '' --logfile "$dir/redis/log" &
redis=$!
[ -z "$as_owner" ] || chown postgres "$dir/pg"
cd "$dir/pg"
$as_owner initdb --pgdata="$dir/pg/data" --username=wharf --auth=trust --encoding=UTF8 --locale=C >"$dir/pg.log" 2>&1
# Not by pg_ctl: what it starts is nobody's child, and would outlive a script that is killed.
$as_owner postgres -D "$dir/pg/data" -c listen_addresses='' -c unix_socket_directories="$dir/pg" -c fsync=on \
    -c max_connections=200 -c shared_buffers=256MB >"$dir/pg.log" 2>&1 &
postgres=$!
until pg_isready --quiet --host="$dir/pg" && [ -S "$dir/redis/socket" ]; do sleep 0.1; done
database="postgres://wharf@$(printf %s "$dir/pg" | sed 's|/|%2F|g')/postgres"

figure() { node -p 'Math.round(JSON.parse(require("fs").readFileSync(0)).figures["jobs-per-second"])'; }
bench() { "$root/target/release/wharf" --set "attempts.at-once=$AT_ONCE" bench jobs --json --jobs "$JOBS" --batch "$BATCH" --singles 1 --dir "$dir" "$@" | figure; }
drop() { psql --quiet --host="$dir/pg" --username=wharf postgres --command "DROP SCHEMA IF EXISTS $1 CASCADE" 2>/dev/null; }

run() {
    case $1 in
        wharf-sqlite) bench ;;
        wharf-postgres) drop wharf; bench --store "$database" ;;
        graphile-worker) drop graphile_worker; (cd "$scratch" && node graphile.mjs "$database" "$JOBS" 0 | tail -n 1) ;;
        bullmq)
            redis-cli -s "$dir/redis/socket" flushall >/dev/null
            (cd "$scratch" && node bullmq.mjs "$dir/redis/socket" "$JOBS" 1 "$BULLMQ_AT_ONCE" | tail -n 1)
            ;;
        apalis)
            rm -f "$dir"/apalis.db*
            "$scratch/apalis/release/beside-apalis" "$dir/apalis.db" "$((JOBS / 10))" "$BATCH" | tail -n 1
            ;;
    esac
}

QUEUES="wharf-sqlite wharf-postgres graphile-worker bullmq apalis"
round=0
while [ "$round" -lt "$ROUNDS" ]; do
    round=$((round + 1))
    for queue in $QUEUES; do
        rate=$(run "$queue")
        echo "round $round: $queue $rate" >&2
        echo "$rate" >>"$dir/$queue.rates"
    done
done
middle() { sort -n "$dir/$1.rates" | sed -n "$(((ROUNDS + 1) / 2))p"; }

cat <<END
$JOBS jobs, enqueued by $BATCH, no keys; the one in the middle of $ROUNDS rounds; $(nproc) cores, $(df --output=fstype "$dir" | tail -n 1)

Wharf runs each job in a fresh sandbox: a WebAssembly component that does nothing and has no standard library, which
would cost it 6 µs. The others run a function that does nothing in their own process, and have no limits per key in this
run. apalis gets a tenth of the jobs: the more it has, the slower it is.

QUEUE            JOBS/S  WHARF ON SQLITE IS  VERSION AND SETTINGS
END
ours=$(middle wharf-sqlite)
row() { printf '%-16s %6s  %16s x  %s\n' "$1" "$(middle "$1")" "$(node -p "($ours / $(middle "$1")).toFixed(2)")" "$2"; }
row wharf-sqlite "$("$root/target/release/wharf" --version), synchronous=FULL, $AT_ONCE at once"
row wharf-postgres "the same on PostgreSQL $(postgres --version | sed 's/[^0-9]*\([0-9.]*\).*/\1/'), fsync=on"
row graphile-worker "$GRAPHILE on the same PostgreSQL, localQueue of 500, completions batched, 24 at once"
row bullmq "$BULLMQ on Redis $(redis-server --version | sed 's/.* v=\([0-9.]*\).*/\1/'), appendfsync=always, addBulk, $BULLMQ_AT_ONCE at once"
row apalis "$(sed -n 's/^apalis-sqlite = "\(.*\)"/\1/p' "$root/tests/load/apalis/Cargo.toml") on SQLite, synchronous=FULL, push_bulk, batch_size 1000"
