# The SI ResNet-18 of a quarter of the paper's width on a sample of Tiny ImageNet, 600 images of 10 classes, averaged to
# 32 pixels: a row of figure 18, and no more than that. For two cores.
# All of it: bash scripts/images.sh tiny-small. A single run by hand, in bash:
#   source scripts/defaults.sh; source scripts/setups/tiny-small.sh
#   python train.py $flags --data "$data" --lr 1e-3 --steps $epochs --out RUN

# Batches of 60 fill an epoch of 600 images exactly.
flags="--model si-resnet18 --width 8 --batch-size 60 --log-every 4"
data=datasets/tiny-small.pt
prepare="python -m data tiny-imagenet --source tiny-imagenet-200 --classes 10 --train-per-class 60 --test-per-class 15
         --size 32 --out $data"
prepare=$(echo $prepare)
plrs="1e-4 2e-4 5e-4 1e-3 2e-3 3e-3 5e-3 1e-2 2e-2 5e-2"
seeds_per_plr=3
flrs="2e-4 b12"
epochs=100
finetune_epochs=60
windows="2 5 10"
# Figures 13 and 26 are about larger sets.
norms= keep_losses= sharpness=
