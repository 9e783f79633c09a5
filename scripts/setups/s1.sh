# S1 of the paper: the SI ResNet-18 on CIFAR-10.
# All of it: bash scripts/images.sh s1. A single run by hand, in bash:
#   source scripts/defaults.sh; source scripts/setups/s1.sh
#   python train.py $flags --data "$data" --keep-loss $keep_losses --lr 1e-3 --steps $epochs --out RUN

flags="--model si-resnet18 --width 32 --rho 28 --batch-size 128"
data=datasets/cifar10.pt
prepare="python -m data cifar10"
plrs="1e-5 1.4e-5 2e-5 3e-5 5e-5 7e-5 1e-4 1.4e-4 2e-4 3e-4 5e-4 7e-4 1e-3 1.4e-3 2e-3 3e-3 5e-3 7e-3
      1e-2 1.4e-2 2e-2 3e-2 5e-2 7e-2 1e-1"
first_seed=2003
flrs="1e-5 5e-5 1e-4 2e-4 3e-4"
two_stages="1e-2 1e-3"
converge_lrs="1e-4 2e-4 3e-4"
