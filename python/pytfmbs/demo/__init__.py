"""The demo: a 784→60→10 network on real digits, in fp32 and in trits (``python -m pytfmbs.demo``).

data: the digits as the networks see them. recipes: the networks and how each is trained. train: the
training loop. experiment: every network, every seed. reload: the saved model in another process.
summary: what the terminal shows.
"""
