# The settings of a setup, each with the value that it has where the setup's file does not say otherwise: images.sh,
# boundary.sh and sweep.slurm read this file first, then the setup's, then the environment variable in brackets. A file
# of your own for them may begin with `source scripts/setups/s1.sh` and change what differs. Paths are relative to the
# repository's root.

flags=                          # arguments of train.py: network (or your own, --model FILE.py:FUNCTION), width, batch size
data=                           # prepared image set [DATA]
prepare=                        # the command that prepares it; if it is `python -m data ...` another set there is refused
plrs=                           # learning rates of pre-training [PLRS]
first_seed=2000                 # seed of the first of them; that of the next is one more, and so on
seeds_per_plr=1                 # runs at every PLR; of several the folders are plr<PLR>-seed<SEED> [SEEDS_PER_PLR]
flrs=                           # learning rates of fine-tuning; b12: the largest PLR that converges [FLRS]
epochs=200                      # of pre-training [EPOCHS]
finetune_epochs=200             # of fine-tuning [FINETUNE_EPOCHS]
finetune_log_every=1            # epochs between its measurements, where losses are kept; else as in pre-training
windows="2 5 10 50 100"         # numbers of weights that SWA averages [WINDOWS]
swa_anchor=start                # which of them these averages share: the first (start) or the last (end)
swa_spacing=1                   # epochs between them
two_stages=                     # two-stage pre-training (figure 12): a PLR of 2B and one of 2A [TWO_STAGES]
bands=                          # arguments of analyze.py bands
norms=yes                       # whether filter norms are measured (figure 13); empty: no
keep_losses="1e-2 1e-3"         # train losses at which weights are kept (figure 26); empty: none
sharpness="--level 1e-2 1e-3"   # arguments of analyze.py sharpness (figure 26); empty: it is not measured

# Training until convergence (figure 11), by boundary.sh
converge_lrs=                   # learning rates to begin with; none: the last PLR of regime 1 [LRS]
converge_seeds="1 2 3"          # [SEEDS]
converge_loss=1e-4              # train loss to stop at [UNTIL_LOSS]
converge_epochs=30000           # the most to train for [EPOCHS]
converge_ratio=1.03             # of the two learning rates next to the boundary, to stop at [RATIO]
