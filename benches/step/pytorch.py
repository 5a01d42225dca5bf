"""A step in PyTorch: with the gradient, with the authors' layers (zeta*), with BackPACK's Kronecker factors (K-FAC)."""

import functools

import torch
from networks import batch, network
from worker import DAMPING, LEARNING_RATE, arguments, serve

args = arguments()
torch.set_num_threads(args.threads)
if args.method == "zeta-star":
    import isaac

    net = network(args.network, functools.partial(isaac.Linear, la=DAMPING))
else:
    net = network(args.network)
loss = torch.nn.MSELoss() if args.loss == "mse" else torch.nn.CrossEntropyLoss()
optimizer = torch.optim.SGD(net.parameters(), lr=LEARNING_RATE)
x, labels = batch(args.network)


def step():
    optimizer.zero_grad()
    loss(net(x), labels).backward()
    optimizer.step()


def kfac_step():
    optimizer.zero_grad()
    with backpack(KFAC(mc_samples=1)):
        loss(net(x), labels).backward()
    with torch.no_grad():
        for parameter in net.parameters():
            for axis, factor in enumerate(parameter.kfac):
                damped = factor + DAMPING * torch.eye(len(factor))
                solve = torch.cholesky_inverse(torch.linalg.cholesky(damped))
                gradient = parameter.grad
                parameter.grad = solve @ gradient if axis == 0 else gradient @ solve
    optimizer.step()


if args.method == "kfac":
    from backpack import backpack, extend
    from backpack.extensions import KFAC

    net, loss = extend(net), extend(loss)
serve(kfac_step if args.method == "kfac" else step)
