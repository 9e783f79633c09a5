# S8 of the paper: the ViT on CIFAR-10.
# All of it: bash scripts/images.sh s8. A single run by hand, in bash:
#   source scripts/defaults.sh; source scripts/setups/s8.sh
#   python train.py $flags --data "$data" --lr 1e-4 --steps $epochs --keep 482 --out RUN

# Not published, our choice: the ends of the low band in figure 25. Not as published: fine-tuning keeps the seed of its run.
flags="--model vit --width 512 --depth 6 --heads 8 --patch 4 --weight-decay 1e-4 --batch-size 512
       --augment randaugment --log-every 10"
data=datasets/cifar10.pt
prepare="python -m data cifar10"
plrs="1e-5 2e-5 5e-5 1e-4 2e-4 5e-4 1e-3 2e-3 5e-3 1e-2"
first_seed=1
flrs="1e-5 2e-5 5e-5 1e-4"
epochs=500
finetune_epochs=500
windows="2 5 10"
swa_anchor=end  # the weights of epochs 482, 484, ..., 500, or the last of these
swa_spacing=2
bands="--low-ends 4 6 8 10 12 16"
# Figures 13 and 26 are about scale-invariant networks.
norms= keep_losses= sharpness=
