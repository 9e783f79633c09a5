# S6 of the paper: the practical ResNet-18 on CIFAR-10.
# All of it: bash scripts/images.sh s6. A single run by hand, in bash:
#   source scripts/defaults.sh; source scripts/setups/s6.sh
#   python train.py $flags --data "$data" --lr 1e-2 --steps $epochs --out RUN

# Not published, our choice: momentum and weight decay; the middle FLRs, 1, 2 and 5 of each decade; the length of
# fine-tuning, here that of S1; averages of other than 5 weights; the seeds.
flags="--model resnet18 --width 64 --momentum 0.9 --weight-decay 5e-4 --batch-size 128 --augment crop-flip"
data=datasets/cifar10.pt
prepare="python -m data cifar10"
plrs="1e-4 2e-4 5e-4 1e-3 2e-3 5e-3 1e-2 2e-2 5e-2 1e-1 2e-1 5e-1 1e0"
flrs="1e-4 2e-4 5e-4 1e-3 2e-3"
# Figures 13 and 26 are about scale-invariant networks.
norms= keep_losses= sharpness=
