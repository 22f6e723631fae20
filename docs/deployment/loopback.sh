#!/usr/bin/env bash
# One SuperLink, one provider, two users and one evaluator as processes of their own on this machine, with TLS and
# SuperNode authentication; runs one experiment on them, and ends them. docs/DEPLOYMENT.md explains each step.
#
#   docs/deployment/loopback.sh FOLDER ["OVERRIDE ..."] [CONFIG]
#
# FOLDER takes certificates, keys, logs and each node's state. It ends with the path of the run folder; RUN=that path
# in the environment goes on with a run that was broken off. PORT is the first of the six that it takes (9300).
set -euo pipefail

folder="$(mkdir -p "$1" && cd "$1" && pwd)"
overrides="${2:-}"
config="${3:-configs/quickstart.yaml}"
run=""
[ -z "${RUN:-}" ] || run="$(cd "$RUN" && pwd)"
[ -f "$config" ] && config="$(cd "$(dirname "$config")" && pwd)/$(basename "$config")"
port="${PORT:-9300}"
app="$(cd "$(dirname "$0")/../.." && pwd)"
cd "$folder"

export FLWR_TELEMETRY_ENABLED=0 FLWR_DISABLE_UPDATE_CHECK=1
export FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION=1  # every machine has veilsim installed
export OMP_NUM_THREADS=1

end() {
    trap - EXIT
    # shellcheck disable=SC2046
    kill $(jobs -p) 2>/dev/null || true
    wait
}
trap end EXIT
trap 'exit 130' INT TERM

# 1. A certificate for the SuperLink, and a key pair for each SuperNode.
certify() {
    openssl req -x509 -newkey rsa:2048 -nodes -days 30 -subj "/CN=veilsim example CA" \
        -addext "basicConstraints=critical,CA:TRUE" -keyout ca.key -out ca.crt
    openssl req -newkey rsa:2048 -nodes -subj "/CN=localhost" -keyout server.key -out server.csr
    openssl x509 -req -in server.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 30 -out server.pem \
        -extfile <(printf "subjectAltName=DNS:localhost,IP:127.0.0.1\nbasicConstraints=CA:FALSE")
}
openssl x509 -checkend 86400 -noout -in server.pem >/dev/null 2>&1 || certify >openssl.log 2>&1
nodes="provider user-0 user-1 evaluator-0"
for node in $nodes; do
    [ -f "$node.key" ] || ssh-keygen -q -t ecdsa -b 384 -N "" -C "" -f "$node.key"
done

# 2. The SuperLink, and how `flwr` reaches it.
mkdir -p operator
cat >operator/config.toml <<TOML
[superlink]
default = "loopback"

[superlink.loopback]
address = "127.0.0.1:$port"
root-certificates = "$folder/ca.crt"
TOML
mkdir -p superlink && cd superlink
FLWR_HOME="$folder/superlink" flower-superlink --host 127.0.0.1 --port "$port" \
    --ssl-ca-certfile ../ca.crt --ssl-certfile ../server.pem --ssl-keyfile ../server.key \
    --enable-supernode-auth >../superlink.log 2>&1 &
cd ..
for _ in $(seq 100); do
    curl --silent --fail --cacert ca.crt "https://127.0.0.1:$port/health" >/dev/null && break
    sleep 0.3
done

# 3. Which SuperNodes may join: by their public keys.
export FLWR_HOME="$folder/operator"
for node in $nodes; do
    flwr supernode register "$node.key.pub" loopback >>operator.log
done

# 4. The SuperNodes: each knows its role, its number, and where it may write.
start() { # name, runtime port, node config
    mkdir -p "$1"
    FLWR_HOME="$folder/$1" flower-supernode --superlink "127.0.0.1:$port" --root-certificates ca.crt \
        --auth-supernode-private-key "$1.key" --port "$2" \
        --node-config "$3 state='$folder/$1/state'" >"$1.log" 2>&1 &
}
start provider $((port + 1)) "role='provider' partition-id=0 endpoint='127.0.0.1:$((port + 5))'"
start user-0 $((port + 2)) "role='user' partition-id=0"
start user-1 $((port + 3)) "role='user' partition-id=1"
start evaluator-0 $((port + 4)) "role='evaluator' partition-id=0"
for _ in $(seq 200); do
    [ "$(flwr supernode list loopback --format json 2>/dev/null | grep -c '"online"')" = 4 ] && break
    sleep 0.5
done

# 5. The experiment.
set="users.count=2 runtime.evaluators=1 runtime.exchange=endpoint $overrides"
what="config='$config' set='${set% }'"
if [ -n "$run" ]; then
    what="run='$run'"
    rm -f "$run/progress/status.json"  # what the run has come to is said anew
fi
flwr run "$app" loopback --stream --run-config "$what" | tee run.log || true
[ -n "$run" ] || run="$(sed -n 's/.*run folder: //p' superlink.log run.log | tail -1 | tr -d '\r')"
grep -q '"phase": "complete"' "$run/progress/status.json" 2>/dev/null || {
    echo "the run failed: see above, and $folder/superlink.log${run:+; this script goes on with RUN=$run}" >&2
    exit 1
}
echo "$run"
