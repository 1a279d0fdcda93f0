#!/usr/bin/env bash
# All that wants a GPU, in one go and resumable: the tests marked gpu, the benchmarks, the paper's MNIST recipe.
#
#   OUT=results/gpu BACKENDS="torch jax" RECIPES="mnist" bash benchmarks/gpu.sh
#
# Needs kbl's dependencies and the backends' CUDA builds, and MNIST by KBL_DATA. What is measured goes to $OUT; called
# again with the same $OUT it goes on with the runs that were cut off.
set -uo pipefail
cd "$(dirname "$0")/.."
OUT="${OUT:-results/gpu}"
mkdir -p "$OUT"
status=0
for backend in ${BACKENDS:-torch jax}; do
  export KERAS_BACKEND="$backend"
  python3 -m pytest -q -m gpu tests || status=1
  python3 -m benchmarks.pgd > "$OUT/benchmark-pgd-$backend.json" || status=1
done
for recipe in ${RECIPES:-mnist}; do
  python3 -m kbl run "$recipe" --backend "${BACKEND:-jax}" --set evaluation.samples=10000 \
    --out "$OUT/$recipe" --resume || status=1
done
exit "$status"
