# The SI ConvNet of half the paper's width on a fifth of the images, at 16 pixels: for two cores, by an estimate
# six hours.
# All of it: bash scripts/images.sh convnet-small. A single run by hand, in bash:
#   source scripts/defaults.sh; source scripts/setups/convnet-small.sh
#   python train.py $flags --data "$data" --keep-loss $keep_losses --lr 1e-3 --steps $epochs --out RUN

# With 1024 training images per class, batches of 128 fill an epoch exactly: no small last batch disturbs the running
# batch-norm statistics.
flags="--model si-convnet --width 16 --batch-size 128 --log-every 3"
data=datasets/cifar10-16-1024.pt
prepare="python -m data folder --source DIR --size 16 --train-per-class 1024 --test-per-class 1000 --out $data"
plrs="2e-4 3e-4 5e-4 7e-4 1e-3 1.4e-3 2e-3 3e-3 5e-3 1e-2 2e-2 5e-2 1e-1"
seeds_per_plr=3
flrs="2e-4 5e-4 b12"
epochs=60
finetune_epochs=40
finetune_log_every=2
windows="2 5 10 20"
two_stages="1e-2 3e-3"
keep_losses="0.3 0.1 0.05"
sharpness="--level 0.1 0.05 --images 1024 --probes 8"
converge_lrs="1e-3 1.4e-3 2e-3"
converge_loss=0.01
converge_epochs=240
converge_ratio=1.05
