#!/bin/sh
# All that a GPU is for, in about a quarter of an hour of one, from the repository's root:
#
#     sh recipes/on_gpu.sh DATA WORK [TIER_1_MINUTES TIER_2_MINUTES]
#
# The tests that need a GPU; a new pair for CIFAR-10, tier 1 in 45 seconds and tier 2 in 10 minutes unless others are
# given; its answers to 2,000 test images. DATA holds cifar10-train.parquet and cifar10-test.parquet. Interrupted, by a
# time limit say, it goes on when it is called again: the training where it was, tests and answers from their start. PYTHON
# chooses the interpreter, DEVICE another device.
set -eu
data=$1 work=$2 tier_1=${3:-0.75} tier_2=${4:-10}
python=${PYTHON:-python3}
mkdir -p "$work"
if [ ! -e "$work/tests.log" ]; then
    # shellcheck disable=SC2046 # a list of files
    "$python" -m pytest -n0 -q $(grep -rl "needs a GPU" tests --include="*.py") -k "cuda or gpu or graphed" >"$work/tests.part" 2>&1 ||
        echo "some tests failed: see $work/tests.log" >&2
    mv "$work/tests.part" "$work/tests.log"
fi
if [ ! -e "$work/pair/model.json" ]; then
    "$python" -m recipes.train_cifar10 "$data/cifar10-train.parquet" "$work/pair" --device "${DEVICE:-cuda}" \
        --minutes "$tier_1" --tier-2-minutes "$tier_2" 2>>"$work/train.log"
fi
if [ ! -e "$work/as-shipped.json" ]; then
    "$python" benchmarks/as_shipped.py "$data" --model "$work/pair" --images 2000 --alone 2000 --shifted 50 \
        --out "$work/as-shipped.part"
    mv "$work/as-shipped.part" "$work/as-shipped.json"
fi
