"""Training of networks: the trainer, its optimiser, the denoising loss and image augmentation."""
