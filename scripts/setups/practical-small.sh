# The practical ResNet-18, narrow and on few images of 16 pixels, short enough for two cores.
# All of it: bash scripts/images.sh practical-small. A single run by hand, in bash:
#   source scripts/defaults.sh; source scripts/setups/practical-small.sh
#   python train.py $flags --data "$data" --lr 1e-2 --steps $epochs --out RUN

# As in S6 but for what is smaller. The high FLR is b12, as that of the paper is the largest PLR that converges.
flags="--model resnet18 --width 8 --momentum 0.9 --weight-decay 5e-4 --batch-size 64 --augment crop-flip --log-every 5"
data=datasets/cifar10-16.pt
prepare="python -m data folder --source DIR --size 16 --train-per-class 512 --test-per-class 400 --out $data"
plrs="1e-3 3e-3 1e-2 2e-2 5e-2 1e-1 2e-1 5e-1"
seeds_per_plr=2
flrs="3e-4 1e-3 b12"
epochs=100
finetune_epochs=40
windows="2 5 10"
# Figures 13 and 26 are about scale-invariant networks.
norms= keep_losses= sharpness=
