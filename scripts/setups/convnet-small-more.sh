# More learning rates of regime 2B for the sweep convnet-small, which trends over PLRs need there, with other seeds, and
# two-stage pre-training from one of them; in the same folder, by an estimate two hours on two cores:
#   bash scripts/images.sh convnet-small-more runs/convnet-small

source scripts/setups/convnet-small.sh
plrs="1.4e-2 2.8e-2 4e-2"
first_seed=2100
two_stages="2.8e-2 3e-3"
