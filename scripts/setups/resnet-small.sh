# The SI ResNet-18 of a quarter of the paper's width on a fifth of the images, at 16 pixels: for two cores, by an
# estimate seven hours.
# All of it: bash scripts/images.sh resnet-small. A single run by hand, in bash:
#   source scripts/defaults.sh; source scripts/setups/resnet-small.sh
#   python train.py $flags --data "$data" --keep-loss $keep_losses --lr 1e-3 --steps $epochs --out RUN

source scripts/setups/convnet-small.sh
flags="--model si-resnet18 --width 8 --batch-size 128 --log-every 3"
plrs="1e-4 2e-4 3e-4 5e-4 7e-4 1e-3 1.4e-3 2e-3 3e-3 5e-3 1e-2 2e-2 5e-2"
flrs="1e-4 2e-4 b12"
two_stages="5e-3 1e-3"
converge_lrs="3e-4 5e-4 7e-4"
