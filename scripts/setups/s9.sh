# S9 of the paper: the ViT on CIFAR-100.
# All of it: bash scripts/images.sh s9. A single run by hand, in bash:
#   source scripts/defaults.sh; source scripts/setups/s9.sh
#   python train.py $flags --data "$data" --lr 1e-4 --steps $epochs --keep 482 --out RUN

# As S8. Not published, our choice: the high FLR, here that of S8; the ends of the low band in figure 25.
source scripts/setups/s8.sh
data=datasets/cifar100.pt
prepare="python -m data cifar100"
