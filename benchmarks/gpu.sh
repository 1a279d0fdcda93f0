#!/usr/bin/env bash
# All that wants a GPU, in one go and resumable: the tests marked gpu, the benchmarks, the paper's recipes.
#
#   OUT=results/gpu BACKENDS="torch jax" PARTS="tests benchmarks mnist cifar" LIMIT=600 bash benchmarks/gpu.sh
#
# Needs kbl's dependencies and the backends' CUDA builds, and MNIST and CIFAR-10 by KBL_DATA. What is measured goes to
# $OUT; called again with the same $OUT it goes on with the runs that were cut off. LIMIT interrupts each command after
# so many seconds, as Ctrl-C does. PARTS chooses, in this order:
#   tests       the tests marked gpu, on each backend
#   contracts   (not by default) what every attack promises, on each backend
#   benchmarks  the table of docs/performance.md, on each backend, with torch's loop by hand as the floor of all (without
#               memory, which is the host's)
#   profile     (not by default) where the time of an attack and of a training step goes, by hand and by kbl
#   precision   (not by default) what mixed bfloat16 and TensorFloat-32 cost in accuracy
#   mnist       Table 1 at the paper's scale: adversarial training and ATBLR, 50 epochs of PGD-40
#   cifar       Table 2 on ResNet-32 at the scale "gpu": natural, adversarial training, ATBLR; SCALE=paper for 200 epochs
set -uo pipefail
cd "$(dirname "$0")/.."
OUT="${OUT:-results/gpu}"
BACKENDS="${BACKENDS:-torch jax}"
PARTS="${PARTS:-tests benchmarks mnist cifar}"
mkdir -p "$OUT"
status=0
limited() { timeout --signal=INT --kill-after=60 "${LIMIT:-0}" "$@" || status=1; }
for backend in $BACKENDS; do
  if [[ " $PARTS " == *" tests "* ]]; then
    KERAS_BACKEND="$backend" limited python3 -m pytest -q -m gpu tests
  fi
  if [[ " $PARTS " == *" contracts "* ]]; then
    KERAS_BACKEND="$backend" limited python3 -m pytest -q tests/contracts tests/attacks
  fi
  if [[ " $PARTS " == *" benchmarks "* ]]; then
    limited python3 -m benchmarks --backend "$backend" --rounds 3 --no-memory --out "$OUT"
  fi
done
if [[ " $PARTS " == *" benchmarks "* ]]; then
  limited python3 -m benchmarks.render "$OUT"
fi
if [[ " $PARTS " == *" profile "* ]]; then
  for backend in $BACKENDS; do
    for case in pgd40 resnet-pgd10 resnet-at; do
      for contestant in kbl "by hand"; do
        KERAS_BACKEND="$backend" limited python3 -m benchmarks.profile "$case" "$contestant" >> "$OUT/profile.txt"
      done
    done
  done
fi
main="${BACKENDS##* }" # the last of them trains
if [[ " $PARTS " == *" precision "* ]]; then
  limited python3 -m kbl run recipes/precision.toml --backend "$main" --out "$OUT/precision"
fi
if [[ " $PARTS " == *" mnist "* ]]; then
  limited python3 -m kbl run recipes/paper/table1.toml --backend "$main" --set "scale=${SCALE:-paper}" --out "$OUT/table1"
fi
if [[ " $PARTS " == *" cifar "* ]]; then
  limited python3 -m kbl run recipes/paper/table2.toml --backend "$main" --set "scale=${SCALE:-gpu}" \
    --set 'only=["resnet-natural","resnet-at","resnet-atblr"]' --out "$OUT/table2"
fi
exit "$status"
