"""The parties of the paper, in plain PyTorch: nothing in here imports flwr or ray."""
