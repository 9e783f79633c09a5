# S2 of the paper: the SI ResNet-18 on CIFAR-100.
# All of it: bash scripts/images.sh s2. A single run by hand, in bash:
#   source scripts/defaults.sh; source scripts/setups/s2.sh
#   python train.py $flags --data "$data" --keep-loss $keep_losses --lr 1e-3 --steps $epochs --out RUN

# Not published, our choice: the radius of training, here that of its geometry; the seeds; the middle FLR (where the
# paper does not tell the FLRs between its low and its high one, they are 1, 2 and 5 of each decade).
flags="--model si-resnet18 --width 32 --rho 28 --batch-size 128"
data=datasets/cifar100.pt
prepare="python -m data cifar100"
plrs="1e-5 2e-5 5e-5 1e-4 2e-4 5e-4 1e-3 2e-3 5e-3 1e-2 2e-2 5e-2 1e-1 2e-1 5e-1"
flrs="2e-5 5e-5 1e-4"
