# The ViT, narrow and on few images of 16 pixels, short enough for two cores.
# All of it: bash scripts/images.sh vit-small. A single run by hand, in bash:
#   source scripts/defaults.sh; source scripts/setups/vit-small.sh
#   python train.py $flags --data "$data" --lr 1e-3 --steps $epochs --keep 62 --out RUN

# As in S8 but for what is smaller, and RandAugment, under which such a network hardly learns: after 20 epochs at 2e-3
# (two blocks, one run) test accuracy was 29 %, and 42 % with crops and flips alone. The high FLR is b12, as that of the paper is the largest
# PLR that converges.
flags="--model vit --width 64 --depth 4 --heads 4 --patch 4 --weight-decay 1e-4 --batch-size 32
       --augment crop-flip --log-every 5"
data=datasets/cifar10-16.pt
prepare="python -m data folder --source DIR --size 16 --train-per-class 512 --test-per-class 400 --out $data"
plrs="1e-4 2e-4 5e-4 1e-3 2e-3 3e-3 5e-3 1e-2"
seeds_per_plr=2
flrs="5e-5 2e-4 b12"
epochs=80
finetune_epochs=40
windows="2 5 10"
swa_anchor=end
swa_spacing=2
bands="--low-ends 2 3 4 5 6 8"
# Figures 13 and 26 are about scale-invariant networks.
norms= keep_losses= sharpness=
