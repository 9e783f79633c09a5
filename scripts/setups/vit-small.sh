# The ViT, narrow and on few images of 16 pixels, short enough for two cores.
# All of it: bash scripts/images.sh vit-small. A single run by hand, in bash:
#   source scripts/defaults.sh; source scripts/setups/vit-small.sh
#   python train.py $flags --data "$data" --lr 1e-3 --steps $epochs --keep 102 --out RUN

# As in S8 but for what is smaller. The high FLR is b12, as that of the paper is the largest PLR that converges.
flags="--model vit --width 64 --depth 4 --heads 4 --patch 2 --weight-decay 1e-4 --batch-size 128
       --augment randaugment --log-every 2"
data=datasets/cifar10-16.pt
prepare="python -m data folder --source DIR --size 16 --train-per-class 256 --test-per-class 500 --out $data"
plrs="2e-5 5e-5 1e-4 2e-4 5e-4 1e-3 2e-3 5e-3"
seeds_per_plr=2
flrs="2e-5 5e-5 b12"
epochs=120
finetune_epochs=60
windows="2 5 10"
swa_anchor=end
swa_spacing=2
bands="--low-ends 2 3 4 5 6 8"
# Figures 13 and 26 are about scale-invariant networks.
norms= keep_losses= sharpness=
