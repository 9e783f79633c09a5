# S5 of the paper: the SI ResNet-18 on Tiny ImageNet.
# All of it: bash scripts/images.sh s5. A single run by hand, in bash:
#   source scripts/defaults.sh; source scripts/setups/s5.sh
#   python train.py $flags --data "$data" --keep-loss $keep_losses --lr 1e-3 --steps $epochs --out RUN

# Of its training nothing is published: all of this but the network is our choice. Its high FLR is b12, as that of the
# other setups is the largest PLR that converges.
flags="--model si-resnet18 --width 32 --rho 28 --batch-size 128"
data=datasets/tiny-imagenet.pt
prepare="python -m data tiny-imagenet --source tiny-imagenet-200 --classes 100"
plrs="1e-5 2e-5 5e-5 1e-4 2e-4 5e-4 1e-3 2e-3 5e-3 1e-2 2e-2 5e-2 1e-1"
flrs="1e-5 b12"
