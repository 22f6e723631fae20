"""What two or more parties share: data, the U-Net, optimisation recipes, the vocabulary of the exchange."""
