"""How a trained model is read token by token: weights, kernels, caches, drafts."""
