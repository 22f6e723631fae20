"""An experiment that real Flower gets through in a minute."""

TINY = {
    "name": "tiny",
    "data": {"name": "digits", "size": 16},
    "classifier": {"flip": False, "training": {"epochs": 1, "batch_size": 64, "lr": 0.05, "schedule": "one_cycle"}},
    "users": {"count": 3, "images": 33, "validation_images": 20},
    "user": {
        "alpha": 0.05,
        "width": 4,
        "depth": 2,
        "features": {"layer": "relu1_2", "weights": "random"},
        "training": {"epochs": 8, "batch_size": 16, "lr": 0.05},
    },
    "strategy": {"rounds": 4},
    "attack": {
        "pairs": 40,
        "test_images": 30,
        "pictures": 4,
        "itns": [
            {"name": "paper", "width": 4, "depth": 2, "training": {"epochs": 2}},
            {"name": "strong", "width": 4, "depth": 2, "training": {"epochs": 2, "optimiser": "adam", "lr": 0.01}},
        ],
    },
    # One asks for published thetas, the other for what the provider remembers.
    "studies": [{"kind": "transfer", "images": 30}, {"kind": "curious", "pairs": 36, "images": 30}],
    "runtime": {"workers": 2, "evaluators": 2, "precision": "fp32"},
}
