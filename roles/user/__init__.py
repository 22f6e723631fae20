"""A user: trains a transformation network h_theta of its own, holding images and ids but neither psi nor labels."""
