# S7 of the paper: the practical ResNet-18 on CIFAR-100.
# All of it: bash scripts/images.sh s7. A single run by hand, in bash:
#   source scripts/defaults.sh; source scripts/setups/s7.sh
#   python train.py $flags --data "$data" --lr 1e-2 --steps $epochs --out RUN

# Not published, our choice: as for S6.
flags="--model resnet18 --width 64 --momentum 0.9 --weight-decay 5e-4 --batch-size 128 --augment crop-flip"
data=datasets/cifar100.pt
prepare="python -m data cifar100"
plrs="1e-4 2e-4 5e-4 1e-3 2e-3 5e-3 1e-2 2e-2 5e-2 1e-1 2e-1 5e-1"
flrs="1e-4 2e-4 5e-4 1e-3 2e-3"
# Figures 13 and 26 are about scale-invariant networks.
norms= keep_losses= sharpness=
