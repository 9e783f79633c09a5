# S7 of the paper: the practical ResNet-18 on CIFAR-100.
# All of it: bash scripts/images.sh s7. A single run by hand, in bash:
#   source scripts/defaults.sh; source scripts/setups/s7.sh
#   python train.py $flags --data "$data" --lr 1e-2 --steps $epochs --out RUN

# As S6, but for the largest PLR. Not published, our choice: as for S6.
source scripts/setups/s6.sh
data=datasets/cifar100.pt
prepare="python -m data cifar100"
plrs="1e-4 2e-4 5e-4 1e-3 2e-3 5e-3 1e-2 2e-2 5e-2 1e-1 2e-1 5e-1"
