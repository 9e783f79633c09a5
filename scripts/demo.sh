#!/usr/bin/env bash
# The synthetic study for 10 of its 50 pairs of seeds, at full length, with four FLRs: figures 4, 5 and 15 to 17 and the
# paper's claims held against the runs. About 3 minutes on two cores; the same command resumes it.
#
#   bash scripts/demo.sh [OUT]          OUT: folder for everything it writes (default: runs/demo)
#
# Environment: JOBS, PRETRAIN_STEPS and FINETUNE_STEPS as for scripts/synthetic.sh, which does the work.
set -euo pipefail
out=$(realpath -sm "${1:-$(dirname "$0")/../runs/demo}")
echo "training 230 networks (about 3 minutes on two cores)"
# To compile the training step would take as long here as it saves.
SEEDS="1 2" TRAIN_FLAGS= bash "$(dirname "$0")/synthetic.sh" "$out" --flr low 1e-4 1e-3 high
cat <<END

What to expect (sections 4 and 5 of the paper) in $out/figures:
  figure04  one of the 16 features of the synthetic data
  figure15  three regimes, with both dashed lines drawn. Left of the first, pre-training converges and test accuracy
            rises with the learning rate. Just right of it, in 2A, pre-training alone is worse, yet fine-tuning reaches
            as much as the best of regime 1 or more; farther right small FLRs and averaging get worse and worse.
            The largest FLR lifts the smallest PLRs too, as they lose their minimum at it; its bands are wide.
  figure05  in 2A one feature stands out from the other fifteen, more so after fine-tuning; in regimes 1 and 3 none does.
  figure16  solutions from most of regime 1 are close together with no barrier between them; barriers appear just
            right of the first dashed line and grow with the learning rate, as angles do.
  figure17  as figure 5, for all stages, with one standard deviation over the ten runs
  claims    above, one line per claim of the paper; ten runs leave most of them undecided
END
