# The SI ConvNet, narrow and with small batches, short enough for two cores: about two hours.
# All of it: bash scripts/images.sh narrow. A single run by hand, in bash:
#   source scripts/defaults.sh; source scripts/setups/narrow.sh
#   python train.py $flags --data "$data" --keep-loss $keep_losses --lr 1e-3 --steps $epochs --out RUN

flags="--model si-convnet --width 8 --batch-size 64 --log-every 2"
data=datasets/cifar10-small.pt  # with 256 training images per class, batches of 64 fill an epoch exactly
prepare="python -m data folder --source DIR --train-per-class 256 --test-per-class 500 --out datasets/cifar10-small.pt"
plrs="1e-4 2e-4 5e-4 7e-4 1e-3 1.4e-3 2e-3 3e-3 5e-3 1e-2 2e-2 5e-2 1e-1"
flrs="1e-4 5e-4 b12"
epochs=120
finetune_epochs=60
windows="2 5 10"
two_stages="1e-2 3e-3"
keep_losses="1 0.5 0.3 0.1"
sharpness="--level 0.5 0.3 --images 512 --probes 8"
converge_lrs="7e-4 1e-3 1.4e-3"
converge_loss=0.03
converge_epochs=240
converge_ratio=1.05
