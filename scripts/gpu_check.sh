#!/usr/bin/env bash
# Runs tests/gpu and benchmarks/bench_gpu.py on a machine with a GPU that has Python 3.12, PyTorch's own packages and
# nothing else, and writes what they said as one Markdown page.
#
#     scripts/gpu_check.sh OUT [--tests-s N] [--bench-s N] [--tests-only | --bench-only] [--cpu] [--jobs N]
#                          [--tests 'PYTEST ARGUMENTS'] [--bench 'BENCH_GPU ARGUMENTS']
#
# Runs in the repository's root, with the archives of scripts/gpu_bundle.py in .gpu/ (methods.tar.xz; engine.tar.xz, whole
# or in its parts, for the tests that place runs with Ray; data.npz for the benchmark, which draws its windows without
# it). PYTHON names the interpreter, python3 by default; WORK a folder to unpack into, which a later call uses again.
# --cpu runs the same in small on a processor. A part that fails or takes longer than its seconds does not stop the next.
# OUT gets gpu.md, machine.md, check.log, tests.jsonl, tests.log, bench.json and bench.md.
set -u
export PYTHONUNBUFFERED=1 MPLBACKEND=Agg
cd "$(dirname "$0")/.." || exit 2
[ $# -ge 1 ] && [ "${1#-}" = "$1" ] || { sed -n '2,14s/^# \{0,1\}//p' "$0" >&2; exit 2; }
out=$1; shift
tests_s=200 bench_s=240 jobs=12 cpu= do_tests=1 do_bench=1 test_arguments= bench_arguments=
while [ $# -gt 0 ]; do
    case $1 in
        --tests-s) tests_s=$2; shift ;;
        --bench-s) bench_s=$2; shift ;;
        --jobs) jobs=$2; shift ;;
        --tests) test_arguments=$2; shift ;;
        --bench) bench_arguments=$2; shift ;;
        --tests-only) do_bench= ;;
        --bench-only) do_tests= ;;
        --cpu) cpu=1 ;;
        *) echo "unknown option $1" >&2; exit 2 ;;
    esac
    shift
done
mkdir -p "$out"
out=$(cd "$out" && pwd)
began=$(date +%s)
say() { echo "[$(($(date +%s) - began)) s] $*" | tee -a "$out/check.log"; }

work=${WORK:-$(mktemp -d)}
environment=$work/env
python=${PYTHON:-python3}
if [ ! -x "$environment/bin/python" ]; then
    "$python" -m venv --without-pip "$environment" || exit 1
fi
packages=$("$environment/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
for archive in methods engine; do
    [ -f "$work/$archive.done" ] && continue
    whole=.gpu/$archive.tar.xz
    if [ ! -f "$whole" ]; then
        parts=$(ls "$whole".*of* 2> /dev/null)
        [ "$(echo "$parts" | grep -c .)" = "${parts##*of}" ] || { say "no $whole: going on without"; continue; }
        whole=$work/$archive.tar.xz
        cat $parts > "$whole"
    fi
    "$python" -c 'import sys, tarfile; tarfile.open(sys.argv[1]).extractall(sys.argv[2], filter="fully_trusted")' \
        "$whole" "$packages" && touch "$work/$archive.done"
    say "unpacked $archive"
done
# after our own packages, the image's; then segbench itself
"$python" -c 'import sys, sysconfig
found = dict.fromkeys(p for p in [*sysconfig.get_paths().values(), *sys.path] if p.endswith("-packages"))
print("\n".join([*found, sys.argv[1]]))' "$PWD" > "$packages/image.pth"
"$python" -m compileall -q -j "$(nproc)" "$packages" segbench > /dev/null 2>&1 &
compiling=$!
python=$environment/bin/python
export SEGBENCH_ENV_TORCH=$python SEGBENCH_ENV_CELLPOSE=$python SEGBENCH_CACHE=$work/cache
export PYTHONNOUSERSITE=1 HF_HUB_OFFLINE=1 RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO=0
if [ -n "$cpu" ]; then
    export SEGBENCH_GPU_TESTS_ON=cpu
    bench_arguments="--cpu $bench_arguments"
fi
"$python" - <<'PY' 2>&1 | tee -a "$out/check.log"
import importlib
for name in ("torch torchvision numpy scipy skimage cv2 PIL numba pycocotools mmcv mmengine timm detectron2 cellpose "
             "pydantic pytest xdist").split():
    try:
        module = importlib.import_module(name)
        print(name, getattr(module, "__version__", ""), end=", ")
    except Exception as error:
        print(f"\n{name} cannot be imported: {type(error).__name__}: {error}")
import torch
print("GPU:", torch.cuda.get_device_name(0) if torch.cuda.is_available() else "none")
PY
wait $compiling
say "byte-compiled"

if [ -n "$do_tests" ]; then
    eval "extra=($test_arguments)"
    # the methods' models and checkpoints: in memory, where there is enough of it
    temporary=$work
    [ "$(df --output=avail -k /dev/shm 2> /dev/null | tail -n 1)" -gt 40000000 ] 2> /dev/null && temporary=/dev/shm
    SEGBENCH_GPU_REPORT=$out/tests.jsonl timeout -k 5 "$tests_s" "$python" -m pytest tests/gpu -n "$jobs" \
        --dist loadscope -p no:cacheprovider -p no:benchmark --confcutdir=tests/gpu --timeout="${TEST_S:-300}" \
        --basetemp="$temporary/segbench-pytest" --tb=short -q --durations=15 "${extra[@]}" > "$out/tests.log" 2>&1
    say "tests ended with status $? ($(tail -n 1 "$out/tests.log"))"
    tail -n 60 "$out/tests.log"
fi
if [ -n "$do_bench" ]; then
    data=; [ -f .gpu/data.npz ] && [ -z "$cpu" ] && data="--data .gpu/data.npz"
    eval "extra=($bench_arguments)"
    # shellcheck disable=SC2086 - two arguments or none
    timeout -k 5 "$((bench_s + 30))" "$python" benchmarks/bench_gpu.py $data --out "$out/bench.json" \
        --markdown "$out/bench.md" --seconds "$bench_s" "${extra[@]}" 2>&1 | tee -a "$out/check.log"
    say "bench_gpu.py ended with status ${PIPESTATUS[0]}"
fi
"$python" scripts/gpu_page.py "$out" > "$out/gpu.md"
say "wrote gpu.md"
