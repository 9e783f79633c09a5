#!/usr/bin/env bash
# Kill every command of two small sweeps, on ticks and on images, at random moments, and give it again until it is done;
# then compare all that is on disk with what sweeps leave that nobody killed, byte for byte. Again and again, for a time.
#
#   bash scripts/stress.sh [MINUTES] [OUT]
#
# MINUTES: of killing (default: 10), after about one for the sweeps that are compared with; the last sweeps are finished.
# OUT: folder for all it writes (default: runs/stress), emptied first. What a difference was found in stays there; the
# exit code is 1 then.
# Environment: TASKS, "ticks images" by default; SEED of the moments (default: that of the clock).
set -euo pipefail
export LC_ALL=C
minutes=${1:-10} out=$(realpath -sm "${2:-$(dirname "$0")/../runs/stress}")
[[ $minutes =~ ^[0-9]+$ && $# -le 2 ]] || { echo "usage: bash scripts/stress.sh [MINUTES] [OUT]" >&2; exit 2; }
source "$(dirname "$0")/setup.sh"
scripts=$PWD tasks=${TASKS:-ticks images} RANDOM=${SEED:-$(date +%s)}
rm -rf "$out/reference" "$out/killed" "$out/log"
mkdir -p "$out"

# The commands of a task's sweep, one a line, given in the folder that it is in.
ticks() {
    cat <<END
train.py --data ticks --lr 1e-3 1e-2 30 --seed 1 2 --steps 400 --log-every 40 --keep 300 --checkpoint-seconds 0 --out a/pretrain
finetune.py a/pretrain --lr 1e-4 1e-3 --steps 200 --log-every 40 --checkpoint-seconds 0 --out a/finetune
swa.py a/pretrain --windows 2 5 --spacing 25 --anchor end --checkpoint-seconds 0 --out a/swa
analyze.py features a
analyze.py geometry a
analyze.py claims a --json claims.json
END
}
images() {
    cat <<END
train.py --data ../images.pt --model si-convnet --width 2 --lr 1e-2 --steps 6 --batch-size 16 --keep-loss 2.2 2.3 --checkpoint-seconds 0 --out b/pretrain
finetune.py b/pretrain --lr 1e-3 1e-2 --steps 4 --checkpoint-seconds 0 --out b/finetune
swa.py b/pretrain --windows 2 5 --checkpoint-seconds 0 --out b/swa
analyze.py geometry b
analyze.py bands b --low-ends 2
analyze.py norms b
analyze.py sharpness b --level 2.2 --probes 2
END
}

# A prepared set of small random images.
make_images() {
    python - "$out/images.pt" <<END
import sys, torch
from data.images import ImageSet, digest, save_image_set
random = torch.Generator().manual_seed(0)
tensors = {}
for split, count in (("train", 64), ("test", 32)):
    tensors[f"{split}_images"] = torch.randint(0, 256, (count, 3, 8, 8), dtype=torch.uint8, generator=random)
    tensors[f"{split}_labels"] = torch.arange(count) % 10
classes = tuple("abcdefghij")
save_image_set(ImageSet("random", **tensors, classes=classes, digest=digest(tensors), made_from={}), sys.argv[1])
END
}

# Each command once, in an empty folder; $seconds then holds how long each took, and $commands which they are.
run_undisturbed() {
    mkdir "$out/reference" && cd "$out/reference"
    for task in $tasks; do
        while read -r command; do
            local begin=$EPOCHREALTIME
            python "$scripts/"$command > "$out/log" 2>&1 < /dev/null || { cat "$out/log" >&2; exit 1; }
            commands+=("$command") seconds+=("$(awk "BEGIN { print $EPOCHREALTIME - $begin }")")
        done < <($task)
    done
}

# killed_until_done SECONDS COMMAND: at moments between its start and half as long again as it takes undisturbed, or later
# after many kills, as other processes may have the machine.
killed_until_done() {
    local code process killer longest
    longest=$(awk "BEGIN { print $1 * 1.5 }")
    while true; do
        longest=$(awk "BEGIN { print $longest * 1.1 }")
        python "$scripts/"$2 > "$out/log" 2>&1 < /dev/null &
        process=$!
        (sleep "$(awk "BEGIN { print $longest * $RANDOM / 32768 }")" && kill -"$((RANDOM % 4 ? 9 : 15))" $process) 2> /dev/null &
        killer=$!
        code=0
        wait $process 2> /dev/null || code=$?
        kill $killer 2> /dev/null || true
        case $code in
            0) return ;;
            137 | 143) kills=$((kills + 1)) ;;
            *) cat "$out/log" >&2; echo "$2: ended with $code after $kills kills" >&2; exit 1 ;;
        esac
    done
}

[[ $tasks != *images* ]] || make_images
commands=() seconds=() kills=0 sweeps=0
run_undisturbed
end=$((SECONDS + 60 * minutes))
while [ $sweeps = 0 ] || [ $SECONDS -lt $end ]; do
    rm -rf "$out/killed" && mkdir "$out/killed" && cd "$out/killed"
    for index in "${!commands[@]}"; do killed_until_done "${seconds[index]}" "${commands[index]}"; done
    diff -r --exclude lock "$out/reference" "$out/killed" >&2 || { echo "these differ after $kills kills" >&2; exit 1; }
    sweeps=$((sweeps + 1))
    echo "$kills kills in $sweeps sweeps: not a byte differs"
done
